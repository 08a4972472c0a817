"""File descriptors and threads of many pools and executors: none until needed, all given back."""

from __future__ import annotations

import pytest
from support import check_script

pytestmark = pytest.mark.timeout(180)  # thousands of threads, on a machine that may be busy

FEW = """
    import asyncio, gc, os, resource, sys, time
    from pathlib import Path
    import offgil, offgil.examples as ex

    LIMIT = 20.0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    def fds():
        return len(os.listdir("/proc/self/fd")) - 1

    def maps():
        return len(Path("/proc/self/maps").read_text().splitlines())

    def threads():
        names = []
        for task in Path("/proc/self/task").iterdir():
            try:
                names.append((task / "comm").read_text().rstrip())
            except OSError:  # it has ended
                pass
        return names

    def until(condition):
        give_up = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < give_up, "the condition did not come true in time"
            time.sleep(0.001)

    def is_one_for_time():  # it gets its name when it first runs
        return threads().count("offgil-time") == 1

    def use_much(executor):  # so that it wants the time
        assert list(executor.map(abs, range(-65, 0))) == list(range(65, 0, -1))

    before = fds()
"""


def script(body: str) -> str:
    return check_script(FEW + body, limit=150.0)


def test_a_thousand_executors_at_once() -> None:
    """They need three descriptors in all, and one thread for time. It was three for each."""
    script("""
    executors = [offgil.ThreadPoolExecutor(1) for _ in range(1000)]
    assert fds() == before, "an unused executor needs none"
    for i, executor in enumerate(executors):
        assert executor.submit(ex.echo, i).result(LIMIT) == i
        assert executor.submit(abs, -i).result(LIMIT) == i
    assert fds() == before, "nor does one with few jobs"
    for executor in executors:
        use_much(executor)
    assert fds() <= before + 3, fds()
    until(is_one_for_time)
    for executor in executors:
        executor.shutdown()
    assert fds() == before
    until(lambda: len(threads()) == 1)
    """)


def test_two_thousand_executors_one_after_the_other() -> None:
    """Shut down and kept, they hold neither a descriptor nor the stack of a thread."""
    script("""
    kept = []
    def use(i):
        kept.append(offgil.ThreadPoolExecutor(1))
        assert kept[-1].submit(ex.echo, i).result(LIMIT) == i
        kept[-1].shutdown()
    use(-1)
    mapped = maps()
    for i in range(2000):
        use(i)
    assert fds() == before, fds()
    assert maps() < mapped + 500, (mapped, maps())  # each stack is two
    until(lambda: len(threads()) == 1)
    """)


@pytest.mark.parametrize("wait", [True, False])
def test_executors_of_one_loop(wait: bool) -> None:
    """Each gives back the descriptor that the loop watches, also where nobody waits for its end."""
    script(f"""
    async def main():
        loop, kept = asyncio.get_running_loop(), []
        for i in range(600):
            kept.append(offgil.AsyncioExecutor(1))
            assert await loop.run_in_executor(kept[-1], ex.echo, i) == i
            kept[-1].shutdown(wait={wait})
    asyncio.run(main())
    until(lambda: len(threads()) == 1)
    gc.collect()
    assert fds() == before, fds()
    """)


def test_closed_pools_of_one_loop() -> None:
    """They are kept, their descriptors are not."""
    script("""
    async def main():
        kept = []
        for i in range(600):
            async with offgil.Pool(1) as pool:
                assert await pool.submit(ex.echo, i) == i
            kept.append(pool)
        await asyncio.sleep(0)  # the last one's is taken down in the loop's next turn
        assert len(kept) == 600
        return fds()
    assert asyncio.run(main()) <= before + 3  # the loop's own
    assert fds() == before
    """)


def test_one_pool_serves_many_loops_with_one_descriptor() -> None:
    """It is handed from one loop to the next, also where they are kept."""
    script("""
    pool, kept = offgil.Pool(1), []
    async def main(i):
        kept.append(asyncio.get_running_loop())
        assert await pool.submit(ex.echo, i) == i
    for i in range(600):
        asyncio.run(main(i))
    assert fds() <= before + 3 + 1, fds()
    asyncio.run(pool.aclose())
    assert fds() == before
    """)


@pytest.mark.parametrize(
    "ends", ["executor.shutdown()", "executor.shutdown(wait=False)", "del executor"]
)
def test_the_thread_for_time_ends_with_the_last_pool(ends: str) -> None:
    """It and its descriptors are there while a pool is, whichever way that ends."""
    script(f"""
    for _ in range(3):
        executor = offgil.ThreadPoolExecutor(2)
        assert "offgil-time" not in threads()
        use_much(executor)
        until(is_one_for_time)
        {ends}
        until(lambda: len(threads()) == 1)
        assert fds() == before
    """)


def test_a_forked_child_has_a_thread_for_time_of_its_own() -> None:
    """What was never flushed still runs, in the child's new pool and in its parent's old one."""
    script("""
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, from 3.12 on

    def works(executor):
        futures = [executor.submit(ex.echo, i) for i in range(100)]
        assert [f.result(LIMIT) for f in futures] == list(range(100))
        until(is_one_for_time)

    executor = offgil.ThreadPoolExecutor(2)
    works(executor)
    for _ in range(5):
        child = os.fork()
        if child == 0:
            with offgil.ThreadPoolExecutor(2) as own:
                works(own)
            until(lambda: len(threads()) == 1)
            os._exit(7)
        works(executor)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    executor.shutdown()
    assert fds() == before
    """)
