"""bench/service: every variant answers rightly under load, and no process is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support import DEBUG, block_until

BENCH = Path(__file__).resolve().parent.parent / "bench"
LIMIT = 50.0

missing = [name for name in ("aiohttp", "starlette", "uvicorn") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}"),
    pytest.mark.skipif(DEBUG, reason="what debug mode changes is not in these processes"),
]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "service.measure", *args]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(BENCH), **more}


def running(module: str) -> set[str]:
    """Return the processes that run this module now."""
    found = set()
    for process in Path("/proc").iterdir():
        try:
            if module.encode() in (process / "cmdline").read_bytes():
                found.add(process.name)
        except OSError:
            continue
    return found


VARIANTS = ("inline", "run_in_executor", "run_in_executor-sized", "offgil", "offgil-nice")


@pytest.mark.parametrize(
    ("client", "work", "variants"),
    [("aiohttp", "stdlib", VARIANTS), ("wrk", "native", ("offgil",))],
)
def test_every_response_under_load_is_right(
    client: str, work: str, variants: tuple[str, ...], tmp_path: Path
) -> None:
    if client == "wrk" and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed: `make service` does it")
    if work == "native" and find_spec("heavy_work") is None:
        pytest.skip("bench/service/native is not built: `make service` does it")
    report = tmp_path / "service.json"
    chosen = [word for variant in variants for word in ("--variant", variant)]
    size = ("--rounds", "1", "--seconds", "1", "--rate", "20", "--connections", "2")
    done = subprocess.run(
        command("--work", work, "--client", client, *size, *chosen, "--json", str(report)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(report.read_text())["rows"]
    assert [row["variant"] for row in rows] == list(variants)
    for row in rows:
        assert row["heavy_rate"]["median"] > 0
        assert 0 < row["p50"]["median"] <= row["p99"]["median"] <= row["worst"]["median"]


def test_a_wrong_response_fails_the_measurement(tmp_path: Path) -> None:
    """The first response is compared with the standard library's, the others with the first."""
    (tmp_path / "heavy_work.py").write_text("def seal(*args): return 'wrong', 1")
    broken = f"{BENCH}{os.pathsep}{tmp_path}"
    done = subprocess.run(
        command("--rounds", "1", "--seconds", "1", "--variant", "offgil", "--client", "aiohttp"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=environment(PYTHONPATH=broken),
    )
    assert done.returncode == 1, done.stderr
    assert "wrong response: /heavy answered 200" in done.stderr


async def test_a_service_that_does_not_answer_cannot_be_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At its start, at its end, or between: it is a message with exit code 2, no traceback."""
    monkeypatch.syspath_prepend(str(BENCH))
    from service import running
    from service.measure import main

    started = running.Service.started("offgil", "stdlib", "asyncio", 1)
    with pytest.raises(running.UnusableError, match="did not end within"):
        async with asyncio.timeout(LIMIT), started as service:
            monkeypatch.setattr(running, "LIMIT", 0.001)
    monkeypatch.setattr(running, "LIMIT", 5.0)
    with pytest.raises(running.UnusableError, match="/heavy gave no answer"):
        await service.checked_heavy(1)

    monkeypatch.setattr(running, "LIMIT", 0.001)
    monkeypatch.setattr(sys, "argv", ["measure", "--work", "stdlib", "--variant", "offgil"])
    assert await asyncio.wait_for(asyncio.to_thread(main), LIMIT) == 2


def test_the_service_ends_with_whoever_started_it() -> None:
    """Even a driver that is killed leaves no service behind: its input ends, and so does it."""
    before = running("service.app"), running("service.load")

    def left() -> tuple[set[str], set[str]]:
        return running("service.app") - before[0], running("service.load") - before[1]

    driver = subprocess.Popen(
        command("--work", "stdlib", "--client", "aiohttp", "--rounds", "1", "--seconds", "20"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        block_until(lambda: all(left()))  # by then the service has answered
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait(LIMIT)
    block_until(lambda: not any(left()))
