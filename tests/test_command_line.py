"""`python -m offgil`: what it says where something is missing, or nobody listens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import LIMIT, run_script

WITHOUT_EXTRAS = """
import sys
for name in ("hdrh", "plotly", "rich"):
    sys.modules[name] = None  # an import raises ModuleNotFoundError
from offgil.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["demo", "loadtest"])
def test_help_needs_no_extra(command: str) -> None:
    """Who asks what a command does need not have what it needs."""
    done = run_script(WITHOUT_EXTRAS, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: python -m offgil" in done.stdout


@pytest.mark.parametrize("command", ["demo", "loadtest offgil.examples:echo 1 -n 1"])
def test_a_missing_extra_is_a_line_that_says_how_to_get_it(command: str) -> None:
    """From a clone, as no index has offgil."""
    words = command.split()
    done = run_script(WITHOUT_EXTRAS, *words)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert f"pip install '.[{words[0]}]'" in line and "clone" in line


def test_what_a_report_needs_is_missed_before_anything_is_measured(tmp_path: Path) -> None:
    """--html without Plotly is an error at once; it was one when all had been measured."""
    report = tmp_path / "report.html"
    code = WITHOUT_EXTRAS.replace('("hdrh", "plotly", "rich")', '("plotly",)')
    words = ("loadtest", "offgil.examples:echo", "1", "-n", "1", "--html", str(report))
    done = run_script(code, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs 'plotly" in done.stderr
    assert not report.exists()


SAYS = ["info", "--version", "--help", "loadtest --help"]


@pytest.mark.parametrize("command", [*SAYS, "demo", "loadtest offgil.examples:echo 1 -n 1"])
def test_a_reader_that_has_gone_is_no_error(command: str) -> None:
    """As in `python -m offgil info | true`: no traceback, the exit code of a closed pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(command, writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (128 + 13, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
@pytest.mark.parametrize("command", [*SAYS, "demo", "loadtest offgil.examples:echo 1 -n 1"])
def test_a_full_disk_is_a_line(command: str) -> None:
    """What cannot be written is said on standard error, without a traceback."""
    with open("/dev/full", "wb") as full:
        done = run(command, full.fileno())
    assert done.returncode == 2
    assert done.stderr == "offgil: error: [Errno 28] No space left on device\n"


def run(command: str, stdout: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "offgil", *command.split()],
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # with it, argparse hides what fails
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=LIMIT,
    )
