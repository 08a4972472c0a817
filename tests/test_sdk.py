"""The C++ SDK in a stranger's hands: README's snippets, and a module that asks for more."""

from __future__ import annotations

import datetime
import inspect
import os
import pickle
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from sdk_project import COMPILE_LIMIT, NEEDS_COMPILER, SOURCES, build, load, pybind11, snippet

import offgil

pytestmark = NEEDS_COMPILER

# The second module, beside the README's: with the warnings that a user may have switched on, and
# without the hidden visibility that pybind11's helper gives.
SECOND_MODULE = f"""
pybind11_add_module(strange {SOURCES}/strange.cpp)
target_compile_features(strange PRIVATE cxx_std_20)
target_include_directories(strange PRIVATE ${{offgil}})
target_compile_options(strange PRIVATE -O1 -Wall -Wextra -Wconversion -Werror)
set_target_properties(strange PROPERTIES CXX_VISIBILITY_PRESET default)
"""

# README only declares it.
FIBONACCI = """
std::uint64_t fibonacci(std::uint64_t n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both modules: README's CMakeLists.txt builds them, as it stands."""
    folder = tmp_path_factory.mktemp("sdk")
    (folder / "fastmath.cpp").write_text(snippet("cpp") + FIBONACCI)
    (folder / "CMakeLists.txt").write_text(snippet("cmake") + SECOND_MODULE)
    return build(folder, build_type="Debug")


@pytest.fixture
def strange(modules: Path) -> Any:
    """The module strange.cpp."""
    return load(modules, "strange")


async def test_the_readmes_function_runs_in_a_pool(modules: Path, pool: offgil.Pool) -> None:
    """README's C++ and CMake snippets build a module, whose function is a job."""
    fibonacci = load(modules, "fastmath").fibonacci
    assert isinstance(fibonacci, offgil.NativeFunction)
    assert await pool.submit(fibonacci, 20) == fibonacci(n=20) == 6765
    assert pickle.loads(pickle.dumps(fibonacci)) is fibonacci


# --------------------------------------------------------------------------------------------------
# what a function says of itself

NAMES = [
    *("total", "names", "maybe", "parent", "both", "twice_as_long", "paint", "mirror", "take"),
    *("try_luck", "throw_registered", "twice", "thrice"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_is_what_python_can_read(strange: Any, name: str) -> None:
    """repr and inspect.signature are free of pybind11's markers, whatever the types.

    They leaked ("@collections.abc.Sequence@list@[...]"), and inspect.signature was a SyntaxError.
    """
    function = getattr(strange, name)
    assert not set("@%{}") & set(repr(function))
    signature = inspect.signature(function)
    assert not set("@%{}") & set(str(signature))
    assert len(signature.parameters) == (name != "throw_registered")


def test_a_parameter_may_be_more_than_a_result(strange: Any) -> None:
    """Of pybind11's two texts for a type, parameters have the one and results the other."""
    [numbers] = inspect.signature(strange.total).parameters.values()
    assert str(numbers.annotation).startswith("collections.abc.Sequence[")
    [counts] = inspect.signature(strange.names).parameters.values()
    assert str(counts.annotation).startswith("collections.abc.Mapping[str, ")
    assert inspect.signature(strange.names).return_annotation == "list[str]"
    assert inspect.signature(strange.total).return_annotation is int
    assert inspect.signature(strange.maybe).return_annotation == "float | None"
    assert inspect.signature(strange.parent).return_annotation == "pathlib.Path"


def test_a_registered_class_is_called_by_its_python_name(strange: Any) -> None:
    """In signatures and in errors; one that is not registered by its C++ name."""
    signature = inspect.signature(strange.mirror)
    assert signature.parameters["of"].annotation == "strange.point"
    assert signature.return_annotation == "strange.point"
    assert inspect.signature(strange.take).parameters["it"].annotation == "unregistered"
    assert inspect.signature(strange.try_luck).return_annotation == "no expression"
    for function, expected in (
        (strange.mirror, "'of' (position 1) must be strange.point, not str"),
        (strange.paint, "'with_' (position 1) must be strange.colour, not str"),
        (strange.twice_as_long, "'delay' (position 1) must be datetime.timedelta, not str"),
        (strange.total, "'numbers' (position 1) must be collections.abc.Sequence["),
    ):
        with pytest.raises(TypeError, match=re.escape(expected)):
            function("text")


def test_a_default_is_the_value_itself(strange: Any) -> None:
    """Also where its repr is no expression, as that of an enum's member."""

    def default(function: Any) -> object:
        [parameter] = inspect.signature(function).parameters.values()
        return parameter.default

    assert default(strange.paint) == strange.paint() == strange.colour.green
    assert default(strange.twice_as_long) == datetime.timedelta(seconds=0.5)
    assert default(strange.maybe) is None
    assert default(strange.total) is inspect.Parameter.empty


def test_what_python_cannot_write_has_no_signature(strange: Any) -> None:
    """inspect says what it says of any callable without one; repr shows what there is."""
    for function in (strange.keyword, strange.default_first):
        assert not hasattr(function, "__signature__")
        assert "x: int" in repr(function) or "lambda: int" in repr(function)
        try:
            assert str(inspect.signature(function)) == "(*args, **kwargs)"  # from 3.13 on
        except ValueError:
            assert sys.version_info < (3, 13)


async def test_every_type_goes_there_and_back(strange: Any, pool: offgil.Pool) -> None:
    """A job of each function gives what a direct call gives."""
    for function, argument, result in (
        (strange.total, [1, 2, 3], 6),
        (strange.names, {"b": 1, "a": 2}, ["a", "b"]),
        (strange.maybe, 0.5, 0.5),
        (strange.parent, Path("/a/b"), Path("/a")),
        (strange.both, (1, "one"), (1, "one")),
        (strange.twice_as_long, datetime.timedelta(seconds=1), datetime.timedelta(seconds=2)),
        (strange.paint, strange.colour.red, strange.colour.red),
        (strange.twice, 21, 42),
        (strange.thrice, 14, 42),
    ):
        assert function(argument) == await pool.submit(function, argument) == result
    assert (await pool.submit(strange.mirror, strange.point(1.0, 2.0))).x == -1.0
    assert strange.twice.__doc__ == "Return twice x."


# --------------------------------------------------------------------------------------------------
# texts that are none

LONE = "a\ud800"
BYTE = "a\udc80"  # what stands for a byte in a path

BAD_TEXTS: list[tuple[str, Any, type[Exception], str]] = [
    *((f, LONE, UnicodeEncodeError, "surrogates not allowed") for f in ("text", "wide", "letter")),
    ("maybe_text", LONE, UnicodeEncodeError, "surrogates not allowed"),
    ("either", LONE, UnicodeEncodeError, "surrogates not allowed"),
    ("texts", [["b"], ["c", LONE]], UnicodeEncodeError, "position 1"),
    ("texts", ((LONE,),), UnicodeEncodeError, "surrogates not allowed"),
    ("words", {LONE}, UnicodeEncodeError, "surrogates not allowed"),
    ("names", {"b": 1, LONE: 2}, UnicodeEncodeError, "surrogates not allowed"),
    ("both", (1, LONE), UnicodeEncodeError, "surrogates not allowed"),
    ("parent", LONE, UnicodeEncodeError, "surrogates not allowed"),
    ("parent", Path(LONE), UnicodeEncodeError, "surrogates not allowed"),
    ("parent", "a\0b", ValueError, "embedded null"),
    ("parent", b"a\0b", ValueError, "embedded null"),
    ("letter", "", ValueError, "empty string"),
    ("letter", "ab", ValueError, "multi-character"),
    ("letter", "\u4e16", ValueError, "range"),
    ("letters", ["a", "bc"], ValueError, "multi-character"),
    ("letters", ["a", LONE[1:]], UnicodeEncodeError, "surrogates not allowed"),
]


@pytest.mark.parametrize(("name", "given", "error", "words"), BAD_TEXTS, ids=ascii)
async def test_a_text_that_is_none_of_cpps(
    strange: Any, pool: offgil.Pool, name: str, given: Any, error: type[Exception], words: str
) -> None:
    """A ValueError that names function and parameter; it was "must be str, not str"."""
    function = getattr(strange, name)
    [parameter] = inspect.signature(function).parameters
    for call in (function, pool.submit):
        with pytest.raises(error) as raised:
            call(given) if call is function else call(function, given)
        assert type(raised.value) is error
        assert words in str(raised.value)
        assert f"{name}() argument '{parameter}' (position 1)" in str(raised.value)
    assert pool.stats().submitted == 0


WRONG_TYPES: list[tuple[str, Any]] = [
    ("text", None),
    ("text", 5),
    ("total", [LONE]),
    ("names", {"b": LONE}),
    ("texts", LONE),
    ("texts", [[5, "b"]]),
    ("both", (LONE, "b")),
    ("both", ("b",)),
    ("either", [LONE]),
    ("parent", 5),
    ("mirror", None),
    ("mirror", LONE),
    ("paint", None),
    ("take", None),
    ("try_luck", "one"),
]


@pytest.mark.parametrize(("name", "given"), WRONG_TYPES, ids=ascii)
def test_a_wrong_type_is_a_type_error(strange: Any, name: str, given: Any) -> None:
    """Also where a text in it would be none elsewhere, and where a caster has words of its own."""
    function = getattr(strange, name)
    with pytest.raises(TypeError) as raised:
        function(given)
    assert re.match(rf"{name}\(\) argument '\w+' \(position 1\) must be ", str(raised.value))
    assert str(raised.value).endswith(f", not {type(given).__name__}")


def test_what_a_path_raises_itself(strange: Any) -> None:
    """Its own exception, as an __index__ that raises."""

    class Raises:
        def __fspath__(self) -> str:
            raise LookupError("from __fspath__")

    with pytest.raises(LookupError, match="from __fspath__"):
        strange.parent(Raises())


def test_texts_that_are_ones(strange: Any) -> None:
    """Null characters, and the surrogates that a path may have."""
    assert strange.text("a\0b") == strange.wide("a\0b") == "a\0b"
    assert strange.letter("\0") == "\0"
    assert strange.texts([["a\0"], []]) == [["a\0"], []]
    assert strange.parent(f"/b/{BYTE}/c") == Path(f"/b/{BYTE}")
    assert strange.maybe_text(None) is None
    assert strange.either("x") == "x"
    assert strange.words({"a", "b"}) == {"a", "b"}


@pytest.mark.parametrize("name", [LONE, "\0", "", "tex", "text\0"])
def test_a_keyword_may_be_any_text(strange: Any, name: str) -> None:
    """TypeError that shows it; a surrogate was pybind11's "Unable to cast"."""
    with pytest.raises(TypeError) as raised:
        strange.text(**{name: "a"})
    assert str(raised.value) == f"text() got an unexpected keyword argument '{name}'"


# --------------------------------------------------------------------------------------------------
# errors


@pytest.mark.parametrize("sign", [1, -1], ids=["argument", "result"])
async def test_a_caster_may_throw_anything(strange: Any, pool: offgil.Pool, sign: int) -> None:
    """The call or the job fails, as pybind11 has it; `throw 42` ended the process.

    Lack of memory for a result was a RuntimeError.
    """
    for how, error in ((1, RuntimeError), (2, MemoryError), (3, strange.RegisteredError)):
        with pytest.raises(error):
            strange.try_luck(how * sign)
        with pytest.raises(error):
            await pool.submit(strange.try_luck, how * sign)
    assert await pool.submit(strange.try_luck, 5) == 5


async def test_a_registered_exception_counts_as_the_standard_one(
    strange: Any, pool: offgil.Pool
) -> None:
    """py::register_exception is asked where the GIL is, not of what a function throws."""
    with pytest.raises(IndexError, match="registered"):
        strange.throw_registered()
    with pytest.raises(IndexError, match="registered"):
        await pool.submit(strange.throw_registered)


def test_what_is_refused_is_refused_in_words() -> None:
    """Lambdas that capture, guards that do more than release, views, objects: each in words."""
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    includes = (offgil.get_include(), pybind11.get_include(), sysconfig.get_path("include"))
    done = subprocess.run(
        [
            *compiler,
            *("-std=c++20", "-fsyntax-only"),
            *(f"-I{each}" for each in includes),
            str(SOURCES / "refused.cpp"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        timeout=COMPILE_LIMIT,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode != 0
    told = re.findall(r"error: static assertion failed.*?: .?(offgil::def: .*)", done.stderr)
    for words, times in (
        ("neither a function nor a lambda without captures", 1),
        ("this py::call_guard does not just release the GIL", 3),
        ("behind the function may stand", 1),
        ("this parameter", 1),
        ("the result's type", 1),
    ):
        assert sum(words in each for each in told) == times, done.stderr
    assert done.stderr.count("error: ") == len(told), "nothing but the messages"
