"""The tests of CPython's suite that are not run, each with its reason."""

from __future__ import annotations

import unittest
from typing import Any

# Of ours only: what the standard pool promises to nobody, and ours does otherwise.
ALL_AT_ONCE = "counts threads after a few submits; ours start all together, at the first one"
LEFT_OUT_OF_OURS = {
    "ThreadPoolExecutorTest.test_idle_thread_reuse": ALL_AT_ONCE,
    "ThreadPoolShutdownTest.test_threads_terminate": ALL_AT_ONCE,
}

# Of the older release's single file, whichever executor runs it: mended since.
LEFT_OUT_OF_THE_FILE = {
    "ThreadPoolShutdownTest.test_cancel_futures_wait_false": "takes it for granted that a worker is"
    " quicker than the shutdown, as newer releases' test does not (#116682)",
}

# These look at the private set of threads. Where ours has none, they cannot be run; the same
# properties are then tested from outside, in tests/test_executor_shutdown.py and
# tests/test_executor_threads.py.
NO_THREADS = "reads the private attribute _threads, which ours does not have"
NEED_THREADS = {
    "ThreadPoolExecutorTest.test_saturation",
    "ThreadPoolShutdownTest.test_context_manager_shutdown",
    "ThreadPoolShutdownTest.test_del_shutdown",
    "ThreadPoolShutdownTest.test_shutdown_no_wait",
    "ThreadPoolShutdownTest.test_thread_names_assigned",
    "ThreadPoolShutdownTest.test_thread_names_default",
}


def reason_for_class(case: type[unittest.TestCase], executor: type[Any]) -> str | None:
    """Say why a whole class is not run; None if it is."""
    name = case.__name__
    if "ProcessPool" in name or "FailingInitializerResources" in name:
        return "tests process pools"
    if not hasattr(case, "executor_type"):
        return "tests futures without an executor"
    if not issubclass(case.executor_type, executor):
        return f"tests {case.executor_type.__name__}"
    return None


def reason_for_test(name: str, executor: type[Any], ours: bool, single_file: bool) -> str | None:
    """Say why a test, as Class.method, is not run; None if it is."""
    if single_file and name in LEFT_OUT_OF_THE_FILE:
        return LEFT_OUT_OF_THE_FILE[name]
    if not ours:
        return None
    if name in NEED_THREADS and not hasattr(executor(1), "_threads"):
        return NO_THREADS
    return LEFT_OUT_OF_OURS.get(name)
