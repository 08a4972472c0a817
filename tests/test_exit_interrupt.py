"""Ctrl-C at exit: as many as with the standard executor, the same exit code, the same last words.

A thread of the script sends each signal when it sees the main thread where that one would wait for
ever. The last one has to end the process: it hangs, and the test fails, where one more is needed.
"""

from __future__ import annotations

import re
import signal

import pytest
from support import run_script

PRELUDE = """
    import asyncio, atexit, os, signal, sys, threading, time
    import offgil, offgil.examples as ex
    signal.signal(signal.SIGINT, signal.default_int_handler)

    kind, native = sys.argv[1:]
    if kind == "standard":
        from concurrent.futures import ThreadPoolExecutor as Executor
    else:
        Executor = offgil.ThreadPoolExecutor
    for_ever = ex.sleep if native == "native" else time.sleep

    def install():
        if kind == "installed":
            offgil.install()

    def say(text):
        os.write(1, text.encode())

    def let_it_fall_asleep():
        # The standard library misses a signal that comes just before the system call it waits in.
        # We look for signals every 50 ms, so that ours may never stay asleep.
        seen = None
        for _ in range(20):
            with open(f"/proc/self/task/{os.getpid()}/status") as file:
                now = [line for line in file if line.startswith("voluntary_ctxt_switches")]
            if now == seen:
                return
            seen = now
            time.sleep(0.06)

    def interrupt_when(*moments):
        def watch():
            for moment in moments:
                while not moment():
                    time.sleep(0.001)
                let_it_fall_asleep()
                say("i")
                os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=watch, daemon=True).start()

    ready = threading.Event()
    is_ready = ready.is_set
    def joins_default_executor():
        return any("_do_shutdown" in thread.name for thread in threading.enumerate())
    def exits():
        return threading._SHUTTING_DOWN

    atexit.register(say, "A")
"""

BODIES = {
    "end": """
    interrupt_when(exits)
    executor = Executor(1)
    executor.submit(for_ever, 1000)
    executor.submit(say, "x")  # never begins
    """,
    "sleep": """
    interrupt_when(is_ready, exits)
    executor = Executor(1)
    executor.submit(for_ever, 1000)
    ready.set()
    time.sleep(1000)
    """,
    "many": """
    interrupt_when(exits)
    executors = [Executor(1) for _ in range(20)]
    for executor in executors:
        executor.submit(for_ever, 1000)
    """,
    "callback": """
    interrupt_when(exits)
    executor = Executor(1)
    go = threading.Event()
    executor.submit(go.wait)
    executor.submit(for_ever, 0).add_done_callback(lambda _: threading.Event().wait())
    go.set()
    """,
    "thread": """
    interrupt_when(exits)
    executor = Executor(1)
    executor.submit(for_ever, 1000)
    threading.Thread(target=threading.Event().wait).start()
    """,
    "default executor": """
    interrupt_when(joins_default_executor, exits)
    async def main():
        install()
        asyncio.get_running_loop().run_in_executor(None, for_ever, 1000)
    asyncio.run(main())
    """,
    "to_thread": """
    interrupt_when(is_ready, joins_default_executor, exits)
    async def main():
        install()
        asyncio.get_running_loop().call_later(0.02, ready.set)
        await asyncio.to_thread(for_ever, 1000)
    asyncio.run(main())
    """,
    "sys.exit": """
    interrupt_when(exits)
    executor = Executor(1)
    executor.submit(for_ever, 1000)
    sys.exit(3)
    """,
}
CODES = {"sleep": -signal.SIGINT, "default executor": -signal.SIGINT, "to_thread": -signal.SIGINT}


@pytest.mark.parametrize("native", ["native", "python"])
@pytest.mark.parametrize("kind", ["standard", "ours", "installed"])
@pytest.mark.parametrize("body", BODIES)
def test_one_interrupt_ends_the_wait(body: str, kind: str, native: str) -> None:
    """Whatever runs for ever; then the program cleans up, and the exit code is the same."""
    done = run_script(PRELUDE + BODIES[body], kind, native)
    sent = {"sleep": 2, "default executor": 2, "to_thread": 3}.get(body, 1)
    assert done.stdout == "i" * sent + "A", done
    assert done.returncode == CODES.get(body, 3 if body == "sys.exit" else 0), done
    # The last words: where it was interrupted, which names no file of ours.
    last = re.split(r"(?m)^(?=Exception ignored)", done.stderr)[-1]
    assert last.startswith("Exception ignored"), done
    assert "threading" in last.splitlines()[0], done
    assert last.rstrip().splitlines()[-1].startswith("KeyboardInterrupt"), done
    assert done.stderr.count("Exception ignored") == 1, done


@pytest.mark.parametrize("native", ["native", "python"])
def test_a_late_interrupt(native: str) -> None:
    """One ends the wait for the jobs of a thread that outlives the main one, as well."""
    body = """
    def outlive():
        threading.main_thread().join()
        executor.submit(for_ever, 1000)
    executor = Executor(1)
    interrupt_when(lambda: exits() and not threading.main_thread().is_alive())
    threading.Thread(target=outlive).start()
    """
    done = run_script(PRELUDE + body, "ours", native)
    assert (done.returncode, done.stdout) == (0, "iA"), done
    assert done.stderr.rstrip().splitlines()[-1].startswith("KeyboardInterrupt"), done


def test_what_a_signal_handler_raises_ends_the_wait() -> None:
    """Any exception: a SIGTERM that is made a SystemExit, for one."""
    body = """
    def leave(*_):
        sys.exit(5)
    signal.signal(signal.SIGINT, leave)
    interrupt_when(exits)
    executor = Executor(1)
    executor.submit(for_ever, 1000)
    """
    seen = [run_script(PRELUDE + body, kind, "python") for kind in ("standard", "ours")]
    assert [(done.returncode, done.stdout) for done in seen] == [(0, "iA")] * 2, seen


def test_a_handler_that_raises_nothing_ends_nothing() -> None:
    """The exit goes on waiting, and loses nothing."""
    body = """
    handled = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: (say("h"), handled.set()))
    interrupt_when(exits)
    executor = Executor(1)
    executor.submit(lambda: (handled.wait(20), say("x")))
    """
    for kind in ("standard", "ours"):
        done = run_script(PRELUDE + body, kind, "python")
        assert (done.returncode, done.stdout, done.stderr) == (0, "ihxA", ""), done
