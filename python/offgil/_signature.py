"""A native function's signature, read from its text."""

from __future__ import annotations

import ast
import builtins
from inspect import Parameter, Signature
from typing import Any

_EMPTY = Parameter.empty


def parse(text: str, defaults: tuple[object, ...]) -> Signature:
    """Return the signature that reads ``text``, as "(n: int, seconds: float = 0.5) -> int".

    Nothing in it is evaluated: an annotation other than a built-in type's name stays a text.
    ``defaults`` are the values that ``text`` describes; without them, what is no literal is
    ``...``. Raises SyntaxError or ValueError if the text is no signature.
    """
    match ast.parse(f"def function{text}: ...").body:
        case [ast.FunctionDef() as function]:
            return Signature(
                _parameters(function.args, defaults),
                return_annotation=_annotation(function.returns),
            )
    raise ValueError(f"not a signature: {text}")


def _parameters(args: ast.arguments, defaults: tuple[object, ...]) -> list[Parameter]:
    named = [*args.posonlyargs, *args.args]
    values = defaults if len(defaults) == len(args.defaults) else map(_value, args.defaults)
    fallbacks = [*[_EMPTY] * (len(named) - len(args.defaults)), *values]
    return [
        *(
            _parameter(
                each,
                Parameter.POSITIONAL_ONLY
                if number < len(args.posonlyargs)
                else Parameter.POSITIONAL_OR_KEYWORD,
                fallback,
            )
            for number, (each, fallback) in enumerate(zip(named, fallbacks, strict=True))
        ),
        *(_parameter(each, Parameter.VAR_POSITIONAL) for each in (args.vararg,) if each),
        *(
            _parameter(each, Parameter.KEYWORD_ONLY, _value(fallback))
            for each, fallback in zip(args.kwonlyargs, args.kw_defaults, strict=True)
        ),
        *(_parameter(each, Parameter.VAR_KEYWORD) for each in (args.kwarg,) if each),
    ]


def _parameter(arg: ast.arg, kind: Any, default: object = _EMPTY) -> Parameter:
    return Parameter(arg.arg, kind, default=default, annotation=_annotation(arg.annotation))


def _annotation(node: ast.expr | None) -> object:
    match node:
        case None:
            return _EMPTY
        case ast.Constant(value=str() | None as value):
            return value
        case ast.Name(id=name) if isinstance(known := getattr(builtins, name, None), type):
            return known
    return ast.unparse(node)


def _value(node: ast.expr | None) -> object:
    if node is None:
        return _EMPTY
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...
