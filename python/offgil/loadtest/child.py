"""The process that measures one round, or looks whether the calls can be made at all.

    python -m offgil.loadtest.child FD

reads one line of JSON from its standard input, writes lines of JSON to the descriptor FD, and
takes any further input, or its end, for the wish to stop. What the tested function prints goes
where it always goes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from typing import Any, TextIO

from offgil.loadtest.call import BoundCall, CannotRun, bind, is_native, short
from offgil.loadtest.doors import open_door
from offgil.loadtest.measure import measure, new_loop
from offgil.loadtest.plan import Configuration


def main() -> None:
    """Do what the parent asks and leave, whatever the tested function's threads are doing."""
    # Ctrl-C reaches the whole terminal's group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(int(sys.argv[1]), "w", buffering=1) as output:
        try:
            _answer(output)
        except CannotRun as problem:
            _write(output, "problem", str(problem))
        except BrokenPipeError:
            pass  # the parent is gone
    sys.stdout.flush()
    sys.stderr.flush()
    # A job that never ends would keep an ordinary exit waiting.
    os._exit(0)


def _answer(output: TextIO) -> None:
    task = json.loads(sys.stdin.buffer.readline())
    configurations = [Configuration.of(data) for data in task["configurations"]]
    stop = threading.Event()
    threading.Thread(target=_await_stop, args=(stop,), daemon=True).start()
    if task["check"]:
        _write(output, "checked", _check(configurations))
        return
    (configuration,) = configurations
    found = measure(
        configuration, _bound(configuration), stop, lambda seen: _write(output, "progress", seen)
    )
    _write(output, "round", asdict(found))


def _await_stop(stop: threading.Event) -> None:
    sys.stdin.buffer.read(1)
    stop.set()


def _check(configurations: list[Configuration]) -> list[str]:
    """Find out what cannot work before anything is measured; return a line about each call."""
    about: dict[str, str] = {}
    for configuration in configurations:
        new_loop(configuration.loop).close()
        open_door(
            configuration.door,
            configuration.workers,
            configuration.loops,
            configuration.pool_options,
        ).close()
        if str(configuration.call) not in about:
            about[str(configuration.call)] = _describe(_bound(configuration))
    return [f"{call}: {text}" for call, text in about.items()]


def _describe(call: BoundCall) -> str:
    kind = "native, without the GIL" if is_native(call.function) else "a Python callable"
    if call.verified:
        return f"{kind}; every result has to be {short(call.expected)}"
    return f"{kind}; RESULTS ARE NOT VERIFIED"


def _bound(configuration: Configuration) -> BoundCall:
    return bind(configuration.call, verify=configuration.verify, expect=configuration.expect)


def _write(output: TextIO, kind: str, content: Any) -> None:
    output.write(json.dumps({kind: content}) + "\n")


if __name__ == "__main__":
    main()
