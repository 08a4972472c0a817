"""What is called: MODULE:ATTR with typed arguments, and what it has to return."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import operator
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import offgil

_KEYWORD = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_NOTHING = object()
#: Their ``==`` says yes or no, whatever the other one is.
_PLAIN = {bool, bytes, float, int, str, type(None)}


class CannotRun(Exception):
    """The test cannot be run as asked for; the text says why and what to do."""


@dataclass(frozen=True)
class Call:
    """A function and its arguments as typed, which is how they travel to another process."""

    function: str
    args: tuple[str, ...] = ()
    kwargs: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        name = self.function.partition(":")[2]
        return f"{name}({', '.join((*self.args, *(f'{k}={v}' for k, v in self.kwargs)))})"


def expand(function: str, words: Sequence[str]) -> list[Call]:
    """Return one call per combination of values; raises CannotRun for what is no literal."""
    if not re.fullmatch(r"[^:]+:[^:]+", function):
        raise CannotRun(f"{function!r} is not of the form MODULE:ATTR, as offgil.examples:spin is")
    positional: list[list[str]] = []
    keywords: dict[str, list[str]] = {}
    for word in words:
        if match := _KEYWORD.fullmatch(word):
            keywords[match[1]] = split_values(match[2])
        elif keywords:
            raise CannotRun(f"the argument {word!r} comes after {next(iter(keywords))}=...")
        else:
            positional.append(split_values(word))
    return [
        Call(
            function,
            values[: len(positional)],
            tuple(zip(keywords, values[len(positional) :], strict=True)),
        )
        for values in itertools.product(*positional, *keywords.values())
    ]


def split_values(text: str) -> list[str]:
    """Split ``1,2,3`` into its values; a tuple in parentheses is one value."""
    try:
        tree = ast.parse(f"[{text}\n]", mode="eval").body
    except (SyntaxError, ValueError):
        tree = None
    if not isinstance(tree, ast.List) or not tree.elts:
        raise CannotRun(_no_literal(text))
    # Written anew, so that the same call always looks the same.
    return [repr(literal(ast.unparse(element))) for element in tree.elts]


def literal(text: str) -> Any:
    """Return the value of a Python literal; raises CannotRun."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise CannotRun(_no_literal(text)) from None


def _no_literal(text: str) -> str:
    return (
        f"{text!r} is no Python literal: numbers, 'strings', b'bytes', True, None, and lists, "
        "tuples and dicts of them; a string keeps its quotes, as in \"'text'\""
    )


@dataclass(frozen=True)
class BoundCall:
    """A call whose function is at hand, in the process that will make it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    #: What a result has to equal.
    expected: Any = _NOTHING

    @property
    def verified(self) -> bool:
        """Whether there is something to compare results with."""
        return self.expected is not _NOTHING

    def through(self, submit: Callable[..., Any]) -> Callable[[], Any]:
        """Return what makes this call through a door each time it is called."""
        return partial(submit, self.function, *self.args, **self.kwargs)

    def check(self) -> Callable[[Any], bool]:
        """Return what tells whether a result is right; an array has to be equal throughout."""
        if not self.verified:
            return _anything
        if type(self.expected) in _PLAIN:
            return partial(operator.eq, self.expected)  # this is called once per job
        return partial(same, self.expected)


def _anything(_: Any) -> bool:
    return True


def same(one: Any, other: Any) -> bool:
    """Tell whether two results are equal, also where ``==`` compares element by element."""
    equal = one == other
    if isinstance(equal, bool):
        return equal
    everything = getattr(equal, "all", None)
    return bool(everything() if callable(everything) else equal)


def bind(call: Call, *, verify: bool, expect: str | None) -> BoundCall:
    """Find the function and make the call directly, to know its result; raises CannotRun.

    A function whose direct call fails, or returns something else the second time, can only be
    tested without verification.
    """
    function = _find(call.function)
    args = tuple(literal(text) for text in call.args)
    kwargs = {name: literal(text) for name, text in call.kwargs}
    if not verify:
        return BoundCall(function, args, kwargs)
    if expect is not None:
        return BoundCall(function, args, kwargs, literal(expect))
    results = []
    for _ in range(2):
        try:
            results.append(function(*args, **kwargs))
        except BaseException as error:  # SystemExit too: nothing of a stranger's ends this process
            raise CannotRun(
                f"{call}, called directly, raised {type(error).__name__}: {words(error)}; to load "
                "it all the same, and count the errors, say --no-verify"
            ) from error
    first, second = results
    if inspect.isawaitable(first):
        raise CannotRun(f"{call} returned an awaitable; the load test wants ordinary functions")
    if not _settled(first, second):
        raise CannotRun(
            f"{call} is not deterministic: called twice it returned {short(first)} and "
            f"{short(second)}; say --expect VALUE or --no-verify"
        )
    return BoundCall(function, args, kwargs, first)


def _settled(first: Any, second: Any) -> bool:
    try:
        return same(first, second)
    except Exception:  # whatever a stranger's __eq__ raises
        return False


def _find(name: str) -> Callable[..., Any]:
    module_name, _, path = name.partition(":")
    # As `python -m` has it, also for the script.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise CannotRun(f"cannot import {module_name!r}: {error}") from error
    except BaseException as error:  # a script may call sys.exit
        raise CannotRun(
            f"importing {module_name!r} raised {type(error).__name__}: {words(error)}"
        ) from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [n for n in dir(found) if n[0] != "_" and callable(getattr(found, n, None))]
            has = ", ".join(names) or "nothing that can be called"
            raise CannotRun(f"{name!r}: there is no {part!r}; there is {has}") from None
    if not callable(found):
        raise CannotRun(f"{name!r} is {type(found).__name__}, which cannot be called")
    if inspect.iscoroutinefunction(found):
        raise CannotRun(f"{name!r} is a coroutine function; a pool runs ordinary functions")
    return found  # type: ignore[no-any-return]


def is_native(function: Callable[..., Any]) -> bool:
    """Tell whether a pool runs it without the GIL."""
    return isinstance(function, offgil.NativeFunction)


def short(value: object, limit: int = 80) -> str:
    """Return a repr that fits a line."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def words(error: BaseException) -> str:
    """Return an exception's text, also where asking for it raises."""
    try:
        return str(error)
    except Exception as why:
        return f"<{type(error).__name__}, whose str raised {type(why).__name__}>"
