"""What the exit waits for, and what comes first: the jobs, or the program's own clean-up.

The standard executor is the oracle wherever it can do the same.
"""

from __future__ import annotations

from typing import Any

import pytest
from support import check_script, run_script

PRELUDE = """
    import asyncio, atexit, os, sys, threading, time
    import offgil, offgil.examples as ex

    def say(text):
        os.write(1, text.encode())

    async def start(submit, *jobs):
        for fn, *args in jobs:
            submit(fn, *args)
"""

# Each door gives a function that starts a job that nobody waits for.
DOORS = {
    "standard": """
    from concurrent.futures import ThreadPoolExecutor
    executor = ThreadPoolExecutor(1)
    submit = executor.submit
    """,
    "executor": """
    executor = offgil.ThreadPoolExecutor(1)
    submit = executor.submit
    """,
    "executor of a pool": """
    pool = offgil.Pool(1)
    submit = pool.executor.submit
    """,
    "pool": """
    pool = offgil.Pool(1)
    def submit(fn, *args):
        asyncio.run(start(pool.submit, (fn, *args)))
    """,
    "callback": """
    pool = offgil.Pool(1, delivery="callback")
    def submit(fn, *args):
        asyncio.run(start(pool.submit, (fn, *args)))
    """,
    "installed": """
    loop = asyncio.new_event_loop()
    loop.set_debug(False)  # or it may not find its source when it dies, unclosed
    async def install():
        offgil.install(workers=1)
    loop.run_until_complete(install())
    def submit(fn, *args):
        loop.run_until_complete(start(loop.run_in_executor, (None, fn, *args)))
    """,
    "shut down": """
    executor = offgil.ThreadPoolExecutor(1)
    def submit(fn, *args):
        global submit
        executor.submit(fn, *args)
        executor.submit(fn, *args)
        executor.submit(fn, *args)
        executor.shutdown(wait=False)
        submit = lambda *_: None
    """,
    "dropped": """
    executor = offgil.ThreadPoolExecutor(1)
    def submit(fn, *args):
        global executor, submit
        executor.submit(fn, *args)
        executor.submit(fn, *args)
        executor.submit(fn, *args)
        del executor
        submit = lambda *_: None
    """,
}


def script(door: str, body: str) -> str:
    return PRELUDE + DOORS[door] + body


@pytest.mark.parametrize("registered", ["before", "after"])
@pytest.mark.parametrize("door", DOORS)
def test_jobs_end_before_the_program_cleans_up(door: str, registered: str) -> None:
    """A temporary directory, and an atexit callback, are there for as long as accepted jobs are.

    They went first where the program had registered them after the import of offgil.
    """
    clean_up = """
    import tempfile
    directory = tempfile.TemporaryDirectory()
    atexit.register(lambda: say("A"))
    """
    body = """
    def write():
        time.sleep(0.02)
        try:
            with open(os.path.join(directory.name, "file"), "a") as file:
                file.write("x")
            say("x")
        except OSError as error:
            say(repr(error))

    for _ in range(3):
        submit(write)
    """
    code = PRELUDE + DOORS[door] + clean_up + body
    if registered == "before":
        code = "\n    import atexit, os\n    def say(text): os.write(1, text.encode())\n"
        code += clean_up + PRELUDE + DOORS[door] + body
    assert check_script(code) == "xxxA"


@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
@pytest.mark.parametrize("door", ["standard", "executor", "executor of a pool"])
def test_done_callbacks_are_called_before_the_program_cleans_up(door: str, native: bool) -> None:
    """Of every job that was accepted, also the callback that is still to come, and a slow one."""
    body = """
    def call_back(future):
        time.sleep(0.02)
        say("c")

    atexit.register(lambda: say("A"))
    for _ in range(3):
        submit({fn}, 0.01).add_done_callback(call_back)
    """
    code = script(door, body.format(fn="ex.sleep" if native else "time.sleep"))
    assert check_script(code) == "cccA"


@pytest.mark.parametrize("door", ["executor", "executor of a pool"])
def test_a_thread_that_outlives_the_main_one_still_submits(door: str) -> None:
    """It gets its results; its jobs that nobody waits for end before the program cleans up."""
    body = """
    def outlive():
        threading.main_thread().join()
        say(str(submit(abs, -1).result(10)) + str(submit(ex.echo, 2).result(10)))
        submit(time.sleep, 0.02).add_done_callback(lambda _: say("x"))

    atexit.register(lambda: say("A"))
    threading.Thread(target=outlive).start()
    """
    assert check_script(script(door, body)) == "12xA"


def test_pools_of_a_thread_that_outlives_the_main_one() -> None:
    """It may make some, and use others, when the main thread has ended."""
    body = """
    async def use():
        async with offgil.Pool(1) as mine:
            return await mine.submit(ex.echo, 1) + await pool.submit(abs, -1)

    def outlive():
        threading.main_thread().join()
        say(str(asyncio.run(use())))
        with offgil.ThreadPoolExecutor(1) as executor:
            say(str(executor.submit(abs, -3).result(10)))
        offgil.ThreadPoolExecutor(1).submit(lambda: (time.sleep(0.02), say("x")))

    atexit.register(lambda: say("A"))
    threading.Thread(target=outlive).start()
    """
    assert check_script(script("pool", body)) == "23xA"


@pytest.mark.parametrize("door", ["standard", "executor", "pool", "callback"])
def test_a_job_that_waits_for_a_thread(door: str) -> None:
    """The exit waits for a job which waits for a thread that is no daemon: both end."""
    body = """
    go = threading.Event()
    def wait():
        assert go.wait(20)
        say("x")

    def let_go():
        time.sleep(0.05)
        say("t")
        go.set()

    atexit.register(lambda: say("A"))
    threading.Thread(target=let_go).start()
    submit(wait)
    """
    assert check_script(script(door, body)) == "txA"


@pytest.mark.parametrize("door", ["executor", "executor of a pool"])
def test_a_chain_of_jobs_does_not_hold_the_exit_up(door: str) -> None:
    """Each submits the next one: it is cut off as by the standard executor, before the clean-up."""
    body = """
    ended = []

    def link(i):
        try:
            submit(link, i + 1)
        except RuntimeError as error:
            assert "interpreter shutdown" in str(error), error
            say("r")
        time.sleep(0.001)
        ended.append(i)

    def clean_up():
        assert ended == sorted(ended) and len(ended) > 3, ended
        seen = len(ended)
        time.sleep(0.02)
        assert len(ended) == seen, "a job ran beside the clean-up"
        say("A")

    atexit.register(clean_up)
    submit(link, 0)
    while len(ended) < 4:
        time.sleep(0.001)
    """
    assert check_script(script(door, body)) == "rA"


@pytest.mark.parametrize("job", ["ex.echo, 1", "abs, -1"], ids=["native", "python"])
@pytest.mark.parametrize("observed", [True, False])
def test_a_daemon_thread_that_submits_does_not_hold_the_exit_up(job: str, observed: bool) -> None:
    """What counts is what was accepted before: that has ended, the rest does not matter."""
    body = f"""
    def hammer():
        try:
            while True:
                futures = [submit({job}) for _ in range(20)]
                if {observed}:
                    for future in futures:
                        future.add_done_callback(lambda _: None)
                begun.set()
                futures[-1].result()
        except RuntimeError:
            pass

    begun = threading.Event()
    threading.Thread(target=hammer, daemon=True).start()
    begun.wait()
    atexit.register(lambda: say("A"))
    submit(lambda: (time.sleep(0.02), say("x")))
    """
    assert check_script(script("executor", body)) == "xA"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("kind", ["standard", "ours"])
def test_a_child_of_multiprocessing(kind: str, method: str, tmp_path: Any) -> None:
    """It ends by os._exit(), which no atexit callback precedes; its jobs end before."""
    module = {"standard": "concurrent.futures", "ours": "offgil"}[kind]
    path = tmp_path / "child.py"
    path.write_text(
        f"""
import multiprocessing, os, time
import offgil.examples as ex
from {module} import ThreadPoolExecutor

def write():
    time.sleep(0.02)
    os.write(1, b"x")

def work():
    executor = ThreadPoolExecutor(1)
    for _ in range(2):
        executor.submit(write)
        executor.submit(ex.sleep, 0.01).add_done_callback(lambda _: os.write(1, b"c"))

if __name__ == "__main__":
    process = multiprocessing.get_context({method!r}).Process(target=work)
    process.start()
    process.join(20)
    os.write(1, b"%d" % process.exitcode)
"""
    )
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], None, '__main__')"
    )
    assert sorted(check_script(code, str(path))) == sorted("xcxc0")


@pytest.mark.parametrize("first", ["concurrent.futures.thread", "offgil"])
def test_jobs_of_both_executors_may_use_the_other(first: str) -> None:
    """Whichever was imported first: a job that is accepted at exit ends before the clean-up."""
    body = f"""
    import atexit, os, time
    import {first}
    import concurrent.futures.thread, offgil

    ours = offgil.ThreadPoolExecutor(1)
    theirs = concurrent.futures.ThreadPoolExecutor(1)

    def say(text):
        os.write(1, text.encode())

    def go_on(other, text):
        time.sleep(0.02)
        other.submit(say, text)

    atexit.register(say, "A")
    theirs.submit(go_on, ours, "x")
    ours.submit(go_on, theirs, "y")
    """
    printed = check_script(body)
    assert sorted(printed[:-1]) == ["x", "y"] and printed[-1] == "A"


@pytest.mark.parametrize("door", ["executor", "pool"])
def test_a_callback_at_exit_is_refused(door: str) -> None:
    """No pool takes jobs, and none is made, as soon as the first atexit callback runs."""
    body = """
    def late():
        async def in_pool():
            await offgil.Pool(1).submit(abs, -1)
        for use in (
            lambda: submit(abs, -1),
            lambda: offgil.ThreadPoolExecutor(1).submit(abs, -1),
            lambda: asyncio.run(in_pool()),
        ):
            try:
                use()
            except RuntimeError as error:
                assert "interpreter" in str(error) and "shut" in str(error), error
                say("r")

    atexit.register(late)
    submit(abs, -1)
    """
    assert check_script(script(door, body)) == "rrr"


def test_without_the_private_hook() -> None:
    """A Python without threading._register_atexit(): accepted jobs end when atexit calls us."""
    code = """
    import concurrent.futures.thread, threading
    del threading._register_atexit
    """
    body = """
    for _ in range(3):
        submit(lambda: (time.sleep(0.02), say("x")))
    submit(ex.sleep, 0.01).add_done_callback(lambda _: say("c"))
    """
    assert check_script(code + script("executor", body)) == "xxxc"


def test_an_import_after_the_main_thread_has_ended() -> None:
    """threading takes no hook any more: what such a thread accepts ends all the same."""
    code = """
    import concurrent.futures.thread, os, threading, time

    def outlive():
        threading.main_thread().join()
        import offgil
        executor = offgil.ThreadPoolExecutor(1)
        executor.submit(lambda: (time.sleep(0.02), os.write(1, b"x")))
        os.write(1, str(executor.submit(abs, -1).result(10)).encode())

    threading.Thread(target=outlive).start()
    """
    assert check_script(code) == "x1"


def test_python_has_the_private_hook() -> None:
    """This Python calls what threading._register_atexit() is given before it joins threads."""
    code = """
    import threading
    def outlive():
        threading.main_thread().join()
        print("joined", flush=True)
    threading._register_atexit(lambda: print("hook", flush=True))
    threading.Thread(target=outlive).start()
    """
    assert check_script(code).split() == ["hook", "joined"]


def test_a_job_that_raises_what_ends_a_program() -> None:
    """SystemExit and KeyboardInterrupt of a job, or of a thread, do not end the wait."""
    body = """
    def leave(how):
        raise how
    for how in (SystemExit(3), KeyboardInterrupt()):
        submit(leave, how)
    threading.Thread(target=sys.exit, args=(4,)).start()
    atexit.register(lambda: say("A"))
    submit(lambda: (time.sleep(0.02), say("x")))
    """
    done = run_script(script("executor", body))
    assert (done.returncode, done.stdout, done.stderr) == (0, "xA", "")
