"""Run CPython's own executor tests on offgil.ThreadPoolExecutor, many times over.

    python run.py [--executor standard] [--times 20] [--at-once 4] [--list]

The rounds are shared out among a few processes, since the tests mostly sleep; each process runs
its share one after another. Ends with status 1 when anything failed, and with 2 when the tests
are not to be found.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import faulthandler
import subprocess
import sys
import textwrap
import time
import unittest
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import cpython_suite
import left_out

ROUND_LIMIT = 180  # seconds; a round takes about 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--executor", choices=("ours", "standard"), default="ours")
    parser.add_argument("--times", type=int, default=20, help="rounds, 20 if not set")
    parser.add_argument("--at-once", type=int, default=4, help="processes, 4 if not set")
    parser.add_argument("--list", action="store_true", help="only say what is run and what is not")
    options = parser.parse_args()
    ours = options.executor == "ours"
    try:
        executor = take_executor(ours)
        modules = cpython_suite.load()
    except (cpython_suite.NotFound, ImportError) as problem:
        print(f"conformance: {problem}", file=sys.stderr)
        return 2
    if ours:
        for module in modules:
            cpython_suite.run_scripts_with_ours(module)

    if options.list or options.at_once > 1:
        describe(modules, executor, ours)
    if options.list:
        return 0
    if options.at_once > 1:
        return share_out(options.executor, options.times, options.at_once)
    return repeat(modules, executor, ours, options.times)


def take_executor(ours: bool) -> type[Any]:
    """Return the executor to test, and let the tests find it where the standard one is."""
    if ours:
        import offgil

        if not hasattr(offgil, "ThreadPoolExecutor"):
            raise ImportError(f"{offgil.__file__} has no ThreadPoolExecutor")
        # Looked up by the tests at import (executor_type) and when they run.
        concurrent.futures.ThreadPoolExecutor = offgil.ThreadPoolExecutor  # type: ignore[misc]
    return concurrent.futures.ThreadPoolExecutor


INDENT = {"initial_indent": "  ", "subsequent_indent": "    "}

# -- what is run -----------------------------------------------------------------------------------


def classes(modules: list[ModuleType]) -> Iterator[type[unittest.TestCase]]:
    for module in modules:
        for thing in vars(module).values():
            # Without the base class, and without what a module has only imported from another.
            is_case = isinstance(thing, type) and issubclass(thing, unittest.TestCase)
            if is_case and thing.__module__ == module.__name__ and names_of(thing):
                yield thing


def names_of(case: type[unittest.TestCase]) -> list[str]:
    return list(unittest.defaultTestLoader.getTestCaseNames(case))


def chosen(
    modules: list[ModuleType], executor: type[Any], ours: bool
) -> Iterator[unittest.TestCase]:
    for case in classes(modules):
        if left_out.reason_for_class(case, executor) is None:
            for name in names_of(case):
                test = f"{case.__name__}.{name}"
                if left_out.reason_for_test(test, executor, ours, len(modules) == 1) is None:
                    yield case(name)


def describe(modules: list[ModuleType], executor: type[Any], ours: bool) -> None:
    print(f"executor: {executor.__module__}.{executor.__qualname__}")
    print(f"tests: {cpython_suite.origin(modules)}")
    per_class = collections.Counter(type(t).__name__ for t in chosen(modules, executor, ours))
    for name, count in per_class.items():
        print(f"  {name}: {count}")
    whole: dict[str, list[str]] = {}
    single: list[str] = []
    for case in classes(modules):
        reason = left_out.reason_for_class(case, executor)
        if reason is not None:
            whole.setdefault(reason, []).append(f"{case.__name__} ({len(names_of(case))})")
            continue
        for name in names_of(case):
            test = f"{case.__name__}.{name}"
            reason = left_out.reason_for_test(test, executor, ours, len(modules) == 1)
            if reason is not None:
                single.append(f"  {test}: {reason}")
    print("left out:", *single, sep="\n")
    for reason, names in whole.items():
        print(textwrap.fill(f"{reason}: {', '.join(names)}", 98, **INDENT))
    sys.stdout.flush()


# -- running ---------------------------------------------------------------------------------------


class Result(unittest.TestResult):
    """Prints a failure when it happens, and names what was skipped."""

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        print(f"ERROR {test.id()}\n{self.errors[-1][1]}", flush=True)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        print(f"FAILED {test.id()}\n{self.failures[-1][1]}", flush=True)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            print(f"FAILED {subtest.id()}\n{(self.failures + self.errors)[-1][1]}", flush=True)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        print(f"skipped by itself: {test.id()}: {reason}", flush=True)


def repeat(modules: list[ModuleType], executor: type[Any], ours: bool, times: int) -> int:
    """Run the rounds in this process; return its exit status."""
    from test import support

    support.verbose = 0

    bad = 0
    for i in range(times):
        faulthandler.dump_traceback_later(ROUND_LIMIT, exit=True)
        start = time.monotonic()
        result = Result()
        unittest.TestSuite(chosen(modules, executor, ours)).run(result)
        faulthandler.cancel_dump_traceback_later()
        failed = len(result.failures) + len(result.errors)
        passed = result.testsRun - failed - len(result.skipped)
        print(
            f"round {i + 1} of {times}: {passed} passed, {failed} failed, "
            f"{time.monotonic() - start:.0f} s",
            flush=True,
        )
        bad += failed
        if support.environment_altered:
            print("FAILED: a test has left threads or processes behind")
            support.environment_altered = False
            bad += 1
    return int(bad > 0)


def share_out(executor: str, times: int, at_once: int) -> int:
    """Run the rounds in several processes; return the exit status."""
    start = time.monotonic()
    shares = [times // at_once + (i < times % at_once) for i in range(at_once)]
    command = (sys.executable, __file__, "--at-once", "1")
    processes = [
        subprocess.Popen(
            [*command, "--executor", executor, "--times", str(share)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for share in shares
        if share
    ]
    status = 0
    try:
        for i, process in enumerate(processes, 1):
            out, _ = process.communicate(timeout=ROUND_LIMIT * (times + 1))
            print(f"process {i}:\n{out}", end="", flush=True)
            if process.returncode != 0:
                print(f"process {i} ended with status {process.returncode}")
                status = 1
    finally:
        for process in processes:
            process.kill()
            process.wait()
    print(f"{'FAILED' if status else 'passed'} in {time.monotonic() - start:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
