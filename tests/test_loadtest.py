"""``python -m offgil loadtest`` as a user starts it: figures, verdicts, exit codes, Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import LIMIT, block_until

import offgil
from offgil.__main__ import main
from offgil.loadtest import doors

PACKAGE = Path(offgil.__file__).parent / "loadtest"
SCRIPT = Path(__file__).parent.parent / "bench" / "load_test.py"
# Few jobs, at once: what is tested here is not how fast they are.
QUICK = ("--warmup", "0s", "--rounds", "1")

JOBS = """
import ctypes, itertools, os, threading, time
from pathlib import Path

calls = itertools.count()
in_worker = lambda: threading.current_thread() is not threading.main_thread()

def stall_once():
    # Once, long after the start, the whole process stands still: PyDLL keeps the GIL.
    if next(calls) == 600:
        ctypes.PyDLL(None).usleep(200_000)
    return 1

def three_kinds():
    number = next(calls)
    if number < 2:
        return 1  # the direct calls
    if number % 2:
        raise KeyError("odd")
    return 1 if number % 4 else 2

def die(really=True):
    if really and in_worker():
        os._exit(7)

def leave():
    if in_worker():
        raise SystemExit(3)

def hang(path):
    Path(path).write_text(f"{os.getpid()}.")
    threading.Event().wait()

def touch(path):
    if in_worker():
        time.sleep(0.01)
        if next(calls) == 20:
            print("from a job")
            Path(path).touch()
    return 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which the load test runs; it has the module `jobs`."""
    (tmp_path / "jobs.py").write_text(JOBS)
    return tmp_path


def start(folder: Path, *words: str, script: str | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, script] if script else [sys.executable, "-m", "offgil", "loadtest"]
    return subprocess.Popen(
        [*command, *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return exit code and output, within the limit."""
    try:
        output = process.communicate(timeout=2 * LIMIT)[0]
    finally:
        if process.returncode is None:
            process.kill()
            process.communicate()
    return process.returncode, output


Run = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture
def loadtest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run the command in this process, which saves a start; the measuring ones are real."""
    monkeypatch.chdir(folder)
    path = folder / "report.json"

    def run(*words: str) -> tuple[int, str, dict[str, Any]]:
        """Return exit code, output, and what --json wrote."""
        path.unlink(missing_ok=True)
        code = main(["loadtest", *words, "--json", str(path)])
        text = path.read_text() if path.exists() else ""
        return code, "".join(capfd.readouterr()), json.loads(text) if text else {}

    return run


def figures(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [result["figures"] for result in report["results"]]


def test_every_door_runs_every_job_once_and_checks_it(loadtest: Run) -> None:
    """All doors there are, on both loops; so many jobs, no more; the JSON is as the schema says."""
    loops = "asyncio,uvloop" if _has_uvloop() else "asyncio"
    code, output, report = loadtest(
        "offgil.examples:echo", "7", "--door", "all", "--loop", loops, "-c", "4", "-n",
        "100", *QUICK, "--csv", "report.csv",
    )  # fmt: skip
    assert code == 0, output
    assert [found["jobs"] for found in figures(report)] == [100] * len(report["results"])
    seen = {
        (r["configuration"]["door"], r["configuration"]["loop"]): r["figures"]
        for r in report["results"]
    }
    assert set(seen) == {(d, loop) for d in doors.DOORS for loop in loops.split(",")}
    for (door, _), found in seen.items():
        assert (found["batches_per_job"] is None) == (door in ("run_in_executor", "to_thread"))
    jsonschema.validate(report, json.loads((PACKAGE / "report.schema.json").read_text()))
    with Path("report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["p99"]) for row in rows] == [f["p99"] for f in figures(report)]
    assert "echo(7): native, without the GIL; every result has to be 7" in output


def test_a_trace_shows_the_jobs_of_the_round(loadtest: Run) -> None:
    """As many runs as the counters say, its warm-up left out."""
    code, output, report = loadtest(
        "offgil.examples:echo", "7", "-c", "4", "-n", "300", *QUICK, "--trace", "trace.json"
    )
    assert code == 0, output
    assert f"written: {Path('trace.json').absolute()}" in output
    assert "the trace was full" not in output
    events = json.loads(Path("trace.json").read_text())["traceEvents"]
    runs = [event for event in events if event.get("cat") == "run"]
    assert len(runs) == figures(report)[0]["jobs"] == 300
    assert {event["name"] for event in runs} == {"echo"}


def test_a_trace_that_was_full_is_said(loadtest: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the beginning of the round only, and how many jobs it lacks."""
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)
    # Python runs this beforehand in the measuring process: no test has to make 100 000 jobs.
    Path("sitecustomize.py").write_text(
        "import offgil\n"
        "trace = offgil.Pool.trace\n"
        "offgil.Pool.trace = lambda self, path: trace(self, path, limit=20)\n"
    )
    words = ("offgil.examples:echo", "7", "-w", "1", "-n", "300", *QUICK, "--trace", "trace.json")
    code, output, _ = loadtest(*words)
    assert code == 0, output
    assert "warning: the trace was full: 280 jobs are not in it" in output


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return False
    return True


def test_several_loops_share_one_pool(loadtest: Run) -> None:
    """And the number of jobs; a ramp is drawn, and does not count."""
    words = ("builtins:sum", "[1,2]", "-c", "5", "--loops", "3", *QUICK)
    code, output, report = loadtest(*words, "-n", "99")
    assert code == 0, output
    (found,) = report["results"]
    assert found["figures"]["jobs"] == 99
    assert found["rounds"][0]["pool"]["completed"] >= 99
    code, output, report = loadtest(*words, "-z", "600ms", "--ramp", "300ms")
    assert code == 0, output
    (measured,) = report["results"][0]["rounds"]
    assert measured["timeline"]["seconds"][0] < 0.3 < measured["timeline"]["seconds"][-1]
    assert measured["seconds"] < measured["timeline"]["seconds"][-1]
    # With those of the ramp it would be half as many again.
    assert measured["completed"] < 1.25 * measured["pool"]["completed"]


def test_a_stall_is_in_the_corrected_percentiles_and_not_in_the_uncorrected(loadtest: Run) -> None:
    """For 200 ms nothing could be submitted: a tenth of the jobs that were due waited for that.

    Counted from the submit, only the stalled jobs themselves took long, and their number is far
    below one in a hundred.
    """
    words = ("jobs:stall_once", "-R", "500", "-z", "2s", "--warmup", "0s")
    code, output, report = loadtest(*words)
    assert code == 0, output
    (found,) = figures(report)
    assert found["p95"] >= 0.08, found
    assert found["p99"] >= 0.15, found
    assert found["uncorrected_p95"] < found["p95"] / 2, found
    assert found["uncorrected_max"] >= 0.15, found
    assert found["lag_max"] >= 0.15, found


def test_a_rate_that_cannot_be_reached_is_said(loadtest: Run) -> None:
    """It is a warning, as the figures are what was asked for; an assertion makes it a failure."""
    code, output, report = loadtest(
        "offgil.examples:sleep", "0.01", "-w", "1", "-R", "1000", "-z", "100ms", *QUICK,
        "--assert", "throughput>=900",
    )  # fmt: skip
    assert code == 3, output
    (found,) = figures(report)
    assert found["target_rate"] == 1000
    assert "the rate was not reached" in output
    # All were submitted in time, and most of them waited for all that came before.
    assert found["p50"] > 0.2


def test_assertions_decide_the_exit_code(loadtest: Run) -> None:
    """0 when every configuration keeps them, 3 when one does not; the text says which."""
    words = ("offgil.examples:echo", "7", "-n", "50", "-c", "1", *QUICK)
    code, output, report = loadtest(*words, "--assert", "errors==0", "--assert", "p99<1h")
    assert (code, report["failed_assertions"]) == (0, []), output
    code, output, report = loadtest(*words, "--assert", "errors==0", "--assert", "p99<1ns")
    assert code == 3, output
    assert len(report["failed_assertions"]) == 1
    assert "assertion failed: p99 < 1 ns: it is" in output


def test_wrong_results_and_errors_are_counted_by_kind(loadtest: Run) -> None:
    """A wrong result is exit code 1; the types of exceptions are told with an example."""
    code, output, report = loadtest("jobs:three_kinds", "-n", "40", "-c", "1", *QUICK)
    assert code == 1, output
    (found,) = figures(report)
    assert (found["errors"], found["wrong"], found["jobs"]) == (20, 10, 10)
    pool = report["results"][0]["rounds"][0]["pool"]
    assert pool["failed"] == 20
    assert found["batches_per_job"] == pool["batches"] / (pool["completed"] + pool["failed"])
    assert "20 x KeyError: 'odd'" in output
    assert "10 results were wrong, such as 2" in output


def test_a_function_that_always_fails(loadtest: Run) -> None:
    """Beforehand it is refused with code 2; with --no-verify it is loaded, and the code is 1."""
    words = ("offgil.examples:fail", "'runtime_error'", "-n", "20", *QUICK)
    code, output, report = loadtest(*words)
    assert (code, report) == (2, {}), output
    assert "called directly, raised RuntimeError" in output
    assert "--no-verify" in output
    code, output, report = loadtest(*words, "--no-verify")
    assert code == 1, output
    assert "every call failed, all 20 of them" in output
    assert "RESULTS ARE NOT VERIFIED" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no_such_module:f"], "cannot import 'no_such_module'"),
        (["offgil.examples:spin", "1", "--pool", "spin=-1"], "spin must be between"),
        (["offgil.examples:echo", "7", "-d", "to_thread+install", "-w", "40000"], "32768"),
        (["jobs:die", "-n", "1", *QUICK], "the measuring process exited with status 7"),
        (["jobs:leave", "-n", "1", *QUICK], "the measuring process failed with SystemExit: 3"),
    ],
)
def test_what_cannot_run_is_exit_code_2(loadtest: Run, words: list[str], message: str) -> None:
    """Also where only the measuring process finds out."""
    code, output, _ = loadtest(*words)
    assert code == 2, output
    assert "offgil: error: " in output
    assert message in output
    assert "Fatal Python error" not in output
    assert ("Traceback" in output) == ("see above" in output)


def test_a_configuration_that_cannot_be_measured_leaves_those_before_it(loadtest: Run) -> None:
    """They are reported, as incomplete; the message says which one it was, and the code is 2."""
    code, output, report = loadtest("jobs:die", "False,True", "-n", "1", *QUICK)
    assert code == 2, output
    assert report["complete"] is False
    assert [found["jobs"] for found in figures(report)] == [1]
    assert "error: die(True), pool" in output
    assert "exited with status 7" in output
    assert "these are partial results" in output


def test_a_function_that_reads_its_standard_input_finds_it_empty(folder: Path) -> None:
    """It must not read, nor wait for, what the parent says to the measuring process."""
    code, output = end(start(folder, "builtins:input", "-n", "3", *QUICK))
    assert code == 2, output
    assert "called directly, raised EOFError" in output


@pytest.mark.skipif(not SCRIPT.exists(), reason="a source distribution has no bench/")
def test_the_script_is_the_same_command(folder: Path) -> None:
    """bench/load_test.py takes the same words."""
    code, output = end(start(folder, "offgil.examples:echo", "7", "-c", "0", script=str(SCRIPT)))
    assert code == 2, output
    assert "-c/--concurrency: must be a whole number above 0" in output


def test_the_measuring_process_ends_with_whoever_started_it(folder: Path) -> None:
    """Even when the function that it calls never returns, and the parent is killed."""
    marker = folder / "marker"
    process = start(folder, "jobs:hang", repr(str(marker)))
    try:
        block_until(lambda: marker.exists() and marker.read_text().endswith("."))
        child = int(marker.read_text()[:-1])
    finally:
        process.kill()
        process.wait(LIMIT)
    try:
        block_until(lambda: not _lives(child))
    finally:
        if _lives(child):
            os.kill(child, signal.SIGKILL)
        _, output = end(process)
    assert "finding each function, and calling it directly" in output


def _lives(process: int) -> bool:
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())  # a dead one's is empty
    except OSError:
        return False


def test_ctrl_c_reports_what_there_is(folder: Path) -> None:
    """The exit code is 130, and the files are written; what jobs print goes to the terminal."""
    marker = folder / "marker"
    words = ("jobs:touch", repr(str(marker)), "-z", "1h", "-c", "2", *QUICK)
    process = start(folder, *words, "--json", "report.json", "--html", "report.html")
    try:
        block_until(marker.exists)
        process.send_signal(signal.SIGINT)
    finally:
        code, output = end(process)
    assert code == 130, output
    report = json.loads((folder / "report.json").read_text())
    assert report["complete"] is False
    (partial,) = report["results"][0]["rounds"]
    assert partial["interrupted"]
    assert partial["completed"] > 0
    assert "these are partial results" in output
    assert "from a job" in output
    assert (folder / "report.html").stat().st_size > 0
