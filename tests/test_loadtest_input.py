"""The load test's command line: what it takes, and what it says to what it does not."""

from __future__ import annotations

import itertools
import os
import re
import threading
from pathlib import Path

import pytest

from offgil.loadtest import assertion
from offgil.loadtest.call import Call, CannotRun, bind, expand, same, split_values
from offgil.loadtest.options import Options, parse
from offgil.loadtest.plan import Configuration, Rate, reference_of
from offgil.loadtest.quantity import duration, parse_duration

SPIN = "offgil.examples:spin"

BAD_COMMANDS = [
    ("", "MODULE:ATTR"),
    ("offgil.examples", "MODULE:ATTR"),
    (f"{SPIN} abc", "'abc' is no Python literal"),
    (f"{SPIN} x=1 2", "comes after x="),
    (f"{SPIN} 1 -c 0", "-c/--concurrency: must be a whole number above 0, not '0'"),
    (f"{SPIN} 1 -c -3", "above 0"),
    (f"{SPIN} 1 -c many", "above 0"),
    (f"{SPIN} 1 -c 2000000", "at most 1,000,000"),
    (f"{SPIN} 1 -c 2 --loops 3", "3 loops cannot share 2"),
    (f"{SPIN} 1 -c 2 --loops 3 -R 50%", "3 loops cannot share 2"),
    (f"{SPIN} 1 -n 0", "above 0"),
    (f"{SPIN} 1 -w 0", "above 0"),
    (f"{SPIN} 1 -z 5", "no duration such as 500ms"),
    (f"{SPIN} 1 -z 0s", "longer than nothing"),
    (f"{SPIN} 1 -z 900h", "at most a day"),
    (f"{SPIN} 1 -R 0", "jobs per second above 0"),
    (f"{SPIN} 1 -R -5", "jobs per second above 0"),
    (f"{SPIN} 1 -R nan", "jobs per second above 0"),
    (f"{SPIN} 1 -R fast", "jobs per second above 0"),
    (f"{SPIN} 1 -R 20000000", "at most 10,000,000"),
    (f"{SPIN} 1 -z 2s --ramp 2s", "shorter than a round"),
    (f"{SPIN} 1 -n 5 --ramp 2s", "shorter than a round"),
    (f"{SPIN} 1 --door front", "no door 'front'; there are pool, run, "),
    (f"{SPIN} 1 --loop trio", "no loop 'trio'"),
    (f"{SPIN} microseconds=1 --door run_in_executor", "no keyword arguments"),
    (f"{SPIN} 1 --pool spin", "OPTION=LITERAL"),
    (f"{SPIN} 1 --pool spin=1 --door to_thread", "not for 'to_thread'"),
    (f"{SPIN} 1 --expect 1 --no-verify", "exclude each other"),
    (f"{SPIN} 1 --html /nowhere/report.html", "cannot write '/nowhere/report.html'"),
    (f"{SPIN} 1 --json /", "cannot write '/'"),
    (f"{SPIN} 1 --assert p99", "is no assertion"),
    (f"{SPIN} 1 --assert p99<5", "'5' is no duration"),
    (f"{SPIN} 1 --assert errors==few", "'few' is no number"),
    (f"{SPIN} 1 --assert speed>1", "no figure 'speed' to assert; there are the times p50, "),
    (f"{SPIN} 1 --assert lag_mean<1s", "no figure 'lag_mean' to assert"),
    (f"{SPIN} 1 --assert cpu_x_per_job<1s", "no figure 'cpu_x_per_job' to assert"),
    (f"{SPIN} 1 --assert p1000<1s", "no figure 'p1000' to assert"),
    (f"{SPIN} 1 --compare a.json b.json", "measures nothing"),
    (f"{SPIN} {','.join(map(str, range(1001)))}", "1001 configurations: more than 1000"),
]


def options(command: str) -> Options:
    return parse(command.split(), "loadtest")


@pytest.mark.parametrize(("command", "message"), BAD_COMMANDS, ids=range(len(BAD_COMMANDS)))
def test_a_bad_command_line_is_refused(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2, and what is wrong is said on stderr, before anything is measured."""
    with pytest.raises(SystemExit) as left:
        options(command)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_looking_whether_a_file_can_be_written_leaves_no_trace(tmp_path: Path) -> None:
    """A run that cannot start once left empty files behind; one that exists keeps its content."""
    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "link"
    old.write_text("what was there")
    link.symlink_to(tmp_path / "not there yet")
    words = f"{SPIN} 1 --json {old} --csv {new} --html {link}"
    found = options(words)
    assert (found.json, found.csv, found.html) == (old, new, link)
    with pytest.raises(SystemExit):
        options(f"{words} --assert p99")
    assert old.read_text() == "what was there"
    assert set(tmp_path.iterdir()) == {old, link}


def test_a_fifo_is_neither_waited_for_nor_ended(tmp_path: Path) -> None:
    """Without a reader, to open it would take for ever; a reader would see its end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    asked = threading.Thread(target=options, args=[f"{SPIN} 1 --json {path}"], daemon=True)
    asked.start()
    asked.join(10)
    stuck = asked.is_alive()
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # lets it go, should it wait
    asked.join(10)
    os.close(reader)
    assert not stuck


def test_the_exit_codes_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """--help lists them all."""
    with pytest.raises(SystemExit) as left:
        options("--help")
    assert left.value.code == 0
    codes = capsys.readouterr().out.partition("exit codes:")[2]
    assert re.findall(r"^  (\d+) ", codes, re.MULTILINE) == ["0", "1", "2", "3", "130"]


# --------------------------------------------------------------------------------------------------
# sweeps


def test_commas_make_a_sweep() -> None:
    """Every combination is there once, and a value that is given twice is one."""
    found = options(f"{SPIN} 10,100 --door pool,run -c 1,16,1 -w 1,2 --loop asyncio").configurations
    expected = itertools.product(("10", "100"), ("pool", "run"), (1, 16), (1, 2))
    seen = [(c.call.args[0], c.door, c.concurrency, c.workers) for c in found]
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", ["1"]),
        ("1,2.5", ["1", "2.5"]),
        ("(1,2)", ["(1, 2)"]),
        ("(1,2),[3]", ["(1, 2)", "[3]"]),
        ("'a,b','c'", ["'a,b'", "'c'"]),
        ("b'x'", ["b'x'"]),
        ("-1,+1", ["-1", "1"]),
        ("{'a': 1}", ["{'a': 1}"]),
        ("None", ["None"]),
    ],
)
def test_values_are_split_at_their_outer_commas(text: str, values: list[str]) -> None:
    """A tuple in parentheses, or a string with a comma in it, is one value."""
    assert split_values(text) == values


@pytest.mark.parametrize("text", ["", ",", "f()", "1 2", "__import__('os')", "[1", "1)(", "x"])
def test_what_is_no_literal_is_refused(text: str) -> None:
    """Nothing is evaluated but literals."""
    with pytest.raises(CannotRun, match="no Python literal"):
        split_values(text)


def test_a_share_of_the_closed_loop_comes_after_it() -> None:
    """-R 50% measures the closed loop too, just before, and refers to the one alike."""
    found = options(f"{SPIN} 10,100 --door pool,run -c 4,8 -R 50%").configurations
    for position, configuration in enumerate(found):
        if configuration.rate is not None:
            reference = reference_of(configuration, found[:position])
            assert (reference.call, reference.door, reference.concurrency) == (
                configuration.call,
                configuration.door,
                8,
            )
    assert [c.rate for c in options(f"{SPIN} 10 -R 100").configurations] == [Rate(100.0)]


def test_an_open_loop_takes_any_number_of_loops() -> None:
    """Also more than -c, which has nothing to say there."""
    (found,) = options(f"{SPIN} 10 -R 100 --loops 65").configurations
    assert (found.loops, found.concurrency) == (65, None)


def test_rounds_divide_the_duration_and_the_jobs() -> None:
    """-z and -n are what a configuration gets in all; a single one has one round."""
    several = options(f"{SPIN} 10 -c 1,2 -z 6s -n 10")
    assert (several.rounds, several.configurations[0].seconds) == (3, 2.0)
    assert several.configurations[0].jobs == 4
    single = options(f"{SPIN} 10 -z 6s")
    assert (single.rounds, single.configurations[0].seconds) == (1, 6.0)


def test_a_configuration_travels() -> None:
    """What another process reads is what this one wrote."""
    import json

    for one in options(f"{SPIN} (1,2) x=3 -R 50% --pool spin=0.1 --door pool").configurations:
        assert Configuration.of(json.loads(json.dumps(one.asdict()))) == one


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("3m", 180), ("1m30s", 90), ("10us", 1e-5), (".5s", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    """Units are needed, and can be combined."""
    assert parse_duration(text) == pytest.approx(seconds)


def test_durations_are_written_with_the_unit_that_fits() -> None:
    """Three digits, also below a millisecond."""
    written = [duration(s) for s in (0, 5e-9, 1.234e-5, 0.0123, 1.5, 123.4, None)]
    assert written == ["0", "5 ns", "12.3 us", "12.3 ms", "1.5 s", "123 s", "-"]


# --------------------------------------------------------------------------------------------------
# the function

STRANGE = """
import itertools
_numbers = itertools.count()
def counting(): return next(_numbers)
def failing(): raise KeyError("no such thing")
def leaving(): raise SystemExit(3)
class Mute(Exception):
    def __str__(self): raise RuntimeError("do not ask")
def mute(): raise Mute
async def coroutine(): pass
def awaitable(): return coroutine()
class Box:
    @staticmethod
    def three(): return 3
class Rude:
    def __eq__(self, other): raise RuntimeError("do not compare me")
def rude(): return Rude()
def nan(): return float("nan")
class Array:
    def __eq__(self, other): return Elementwise([True, True])
class Elementwise(list):
    def all(self): return all(iter(self))
def array(): return Array()
number = 5
"""


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a stranger's, by name."""
    (tmp_path / "strange_module.py").write_text(STRANGE)
    (tmp_path / "broken_module.py").write_text("1 / 0")
    (tmp_path / "leaving_module.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    return "strange_module"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", "cannot import 'no_such_module'"),
        ("broken_module:f", "importing 'broken_module' raised ZeroDivisionError"),
        ("leaving_module:f", "importing 'leaving_module' raised SystemExit: 3"),
        ("strange_module:nothing", "there is no 'nothing'; there is .*counting"),
        ("strange_module:number", "is int, which cannot be called"),
        ("strange_module:coroutine", "coroutine function"),
        ("strange_module:counting", "not deterministic: called twice it returned 0 and 1"),
        ("strange_module:rude", "not deterministic"),
        ("strange_module:nan", "not deterministic"),
        ("strange_module:failing", "called directly, raised KeyError: 'no such thing'"),
        ("strange_module:leaving", "called directly, raised SystemExit: 3"),
        ("strange_module:mute", "raised Mute: <Mute, whose str raised RuntimeError>"),
    ],
)
def test_a_function_that_cannot_be_tested_is_refused(strange: str, name: str, message: str) -> None:
    """CannotRun says what is wrong with it, and what to do."""
    with pytest.raises(CannotRun, match=message):
        bind(Call(name), verify=True, expect=None)


def test_what_the_direct_call_cannot_do_can_be_told(strange: str) -> None:
    """--expect replaces the direct calls, --no-verify the verification."""
    told = bind(Call("strange_module:counting"), verify=True, expect="5")
    assert told.check()(5)
    assert not told.check()(6)
    unverified = bind(Call("strange_module:failing"), verify=False, expect=None)
    assert not unverified.verified
    assert unverified.check()(object())


def test_a_nested_name_and_an_array(strange: str) -> None:
    """Dots lead into classes; results that compare element by element are compared as a whole."""
    assert bind(Call("strange_module:Box.three"), verify=True, expect=None).expected == 3
    assert bind(Call("strange_module:array"), verify=True, expect=None).verified
    assert not same(1, 2)


def test_arguments_are_typed() -> None:
    """They are literals, positional and by name."""
    (call,) = expand("builtins:dict", ["[('a', 1)]", "b=2.5", "c='x'"])
    assert bind(call, verify=True, expect=None).expected == {"a": 1, "b": 2.5, "c": "x"}


# --------------------------------------------------------------------------------------------------
# doors and assertions


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--door executor", "doors pool and run"),
        ("--door pool,run", "one configuration"),
        ("--rounds 2", "one configuration and one round"),
        ("-c 1,2", "one configuration"),
    ],
)
def test_a_trace_is_of_one_round(
    words: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a door with a pool; the message says so."""
    with pytest.raises(SystemExit):
        options(f"{SPIN} 1 --trace {tmp_path / 'trace.json'} {words}")
    assert "--trace" in (said := capsys.readouterr().err)
    assert why in said


@pytest.mark.parametrize(
    ("text", "figure", "bound", "is_time"),
    [
        ("p99<5ms", "p99", 0.005, True),
        (" p99.9 <= 1.5s ", "p99.9", 1.5, True),
        ("lag_max<1s", "lag_max", 1, True),
        ("uncorrected_p50>1us", "uncorrected_p50", 1e-6, True),
        ("cpu_per_job<10us", "cpu_per_job", 1e-5, True),
        ("errors==0", "errors", 0, False),
        ("throughput>=1e3", "throughput", 1000, False),
    ],
)
def test_assertions(text: str, figure: str, bound: float, is_time: bool) -> None:
    """Times have units, counts have none."""
    parsed = assertion.parse(text)
    assert (parsed.figure, parsed.is_time) == (figure, is_time)
    assert parsed.bound == pytest.approx(bound)
