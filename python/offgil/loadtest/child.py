"""The process that measures one round, or looks whether the calls can be made at all.

    python -m offgil.loadtest.child FD

reads one line of JSON from its standard input, writes lines of JSON to the descriptor FD, and
takes any further input for the wish to stop. It ends at once when its input does: the parent is
gone then. What the tested function prints goes where it always goes; what it reads is empty.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import asdict
from typing import Any, TextIO

from offgil.loadtest.call import BoundCall, CannotRun, bind, is_native, short, words
from offgil.loadtest.doors import Door, open_door
from offgil.loadtest.measure import measure, new_loop
from offgil.loadtest.plan import Configuration


def main() -> None:
    """Do what the parent asks and leave, whatever the tested function's threads are doing."""
    # Ctrl-C reaches the whole terminal's group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with os.fdopen(int(sys.argv[1]), "w", buffering=1) as output:
            _answer_or_say_why_not(_take_stdin(), output)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # A job that never ends would keep an ordinary exit waiting.
        os._exit(0)


def _take_stdin() -> int:
    """Return a descriptor of what the parent says; standard input is empty from here on."""
    control = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return control


def _answer_or_say_why_not(control: int, output: TextIO) -> None:
    try:
        _answer(control, output)
    except CannotRun as problem:
        _write(output, "problem", str(problem))
    except BrokenPipeError:
        pass  # the parent is gone
    except BaseException as error:  # such as the SystemExit of a job, which ends its event loop
        traceback.print_exc()
        what = f"{type(error).__name__}: {words(error)}"
        _write(output, "problem", f"the measuring process failed with {what}; see above")


def _answer(control: int, output: TextIO) -> None:
    line, _, more = _first_line(control).partition(b"\n")
    task = json.loads(line)
    configurations = [Configuration.of(data) for data in task["configurations"]]
    stop = threading.Event()
    if more:
        stop.set()
    threading.Thread(target=_await_stop, args=(control, stop), daemon=True).start()
    if task["check"]:
        _write(output, "checked", _check(configurations))
        return
    (configuration,) = configurations
    found = measure(
        configuration, _bound(configuration), stop, lambda seen: _write(output, "progress", seen)
    )
    _write(output, "round", asdict(found))


def _first_line(control: int) -> bytes:
    """Return the first line that comes, and what has come after it."""
    heard = b""
    while b"\n" not in heard and (data := os.read(control, 65_536)):
        heard += data
    return heard


def _await_stop(control: int, stop: threading.Event) -> None:
    # No file object: a daemon thread that holds its lock would stop the interpreter from leaving.
    while os.read(control, 1024):
        stop.set()
    os._exit(0)  # nobody waits for an answer, and the function may never return


def _check(configurations: list[Configuration]) -> list[str]:
    """Find out what cannot work before anything is measured; return a line about each call."""
    about: dict[str, str] = {}
    for configuration in configurations:
        _try_door(configuration)
        if str(configuration.call) not in about:
            about[str(configuration.call)] = _describe(_bound(configuration))
    return [f"{call}: {text}" for call, text in about.items()]


def _try_door(configuration: Configuration) -> None:
    loop = new_loop(configuration.loop)
    try:
        door = open_door(
            configuration.door,
            configuration.workers,
            configuration.loops,
            configuration.pool_options,
        )
        loop.run_until_complete(_enter(door))
        door.close()
    finally:
        loop.close()


async def _enter(door: Door) -> None:
    door.enter()


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
