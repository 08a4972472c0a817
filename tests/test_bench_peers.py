"""bench/peers.py: who is there is compared, who is not is a line, a wrong result is an error."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
LIMIT = 50.0


def run_peers(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the comparison, in one tiny round."""
    return subprocess.run(
        [sys.executable, str(BENCH / "peers.py"), "--quick", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, **env},
    )


@pytest.mark.slow
def test_peers_are_compared_and_who_is_missing_is_said(tmp_path: Path) -> None:
    """The reference is there unasked; a package that cannot be imported costs a line, no more."""
    (tmp_path / "joblib.py").write_text("raise ImportError('joblib is broken here')")
    report = tmp_path / "peers.json"
    peers = ("offgil", "asyncio.to_thread", "joblib, threading", "multiprocessing.pool.ThreadPool")
    asked = [word for name in peers for word in ("--peer", name)]
    done = run_peers(*asked, "--json", str(report), PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "joblib, threading: left out, joblib is broken here" in done.stdout

    awaited, synchronous = json.loads(report.read_text())["comparisons"]
    titles = {result["title"] for result in awaited["results"]}
    assert {"run_in_executor", "offgil", "asyncio.to_thread"} <= titles
    for comparison in (awaited, synchronous):
        for result in comparison["results"]:
            for workload, ratio in result["ratios"].items():
                assert ratio["median"] > 0
                assert result["figures"][workload]["median"] > 0
                if result["title"] == comparison["reference"]:
                    assert ratio["median"] == 1
    assert [result["title"] for result in synchronous["results"]] == [
        "ThreadPoolExecutor",
        "multiprocessing.pool.ThreadPool",
    ]


@pytest.mark.slow
def test_a_wrong_result_fails_the_comparison(tmp_path: Path) -> None:
    """A peer that is fast and wrong must not reach the table."""
    (tmp_path / "joblib.py").write_text(
        "class Parallel:\n"
        "    def __init__(self, *args, **kwargs): pass\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *why): pass\n"
        "    def __call__(self, jobs): return [0 for _ in jobs]\n"
        "def delayed(function): return lambda x: x\n"
    )
    done = run_peers("--peer", "joblib, threading", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stdout
    assert "wrong result: joblib, threading, batch" in done.stderr


@pytest.mark.parametrize(
    ("printed", "value", "why_not"),
    [
        ('hello\n{"value": 5, "versions": "peer 1"}\n', 5.0, ""),
        ('{"value": 5, "versions": "peer 1"}\nbye\n', math.nan, "gave no answer, but 'bye'"),
        ("5\n", math.nan, "gave no answer, but '5'"),
        ('{"a": 1}\n', math.nan, "gave no answer, but "),
    ],
)
async def test_a_peer_that_prints_something_ends_no_comparison(
    printed: str, value: float, why_not: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the answer it is no matter; instead of it, this peer is left out."""
    monkeypatch.syspath_prepend(str(BENCH))
    import peer_turns

    turn = tmp_path / "turn.py"
    turn.write_text(f"print({printed!r}, end='')")
    monkeypatch.setattr(peer_turns, "TURN", turn)
    entrant = peer_turns.Entrant("awaited", "a peer", "", None)
    sizes = peer_turns.Sizes.chosen(1, quick=True)
    got = await asyncio.wait_for(peer_turns._turn(entrant, "one", sizes), LIMIT)
    assert got == pytest.approx(value, nan_ok=True)
    assert entrant.why_not.startswith(why_not)
    assert bool(entrant.why_not) == bool(why_not)


def test_an_unwritable_report_is_refused_at_once(tmp_path: Path) -> None:
    done = run_peers("--json", str(tmp_path / "no" / "such" / "folder.json"))
    assert done.returncode == 2
    assert "cannot write" in done.stderr
