"""All checks of the project, one after another, with a summary at the end.

    python check.py <group>...

lint     ruff, mypy, clang-format, and stubtest on the extension
cpp      the C++ tests: plain, under ThreadSanitizer, under AddressSanitizer with UBSan
python   the Python tests on every interpreter found; on the oldest and the newest one also with
         PYTHONASYNCIODEBUG=1. What compiles projects or runs benchmarks only on those two, once
soak     the exit and fork tests fifty times over, on every interpreter found
conformance
         CPython's own executor tests twenty times over, on every interpreter found
compilers
         the C++ tests and the extension with the compiler here, and with sid's g++ and clang,
         beside its newer Boost
quick    the Python tests once, on the interpreter that runs this
format   not a check: rewrite the sources as lint wants them

A step that fails does not stop the others; the exit status is 1 when any failed. Standard library
only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import environment
from environment import ROOT, VENV, Interpreter, Unusable, python_of

MINORS = ("3.11", "3.12", "3.13", "3.14", "3.15")
# Tests that spend their time in a compiler or in a benchmark.
LONG = ("test_bench_*", "test_demo*", "test_sdist*", "test_sdk*", "test_sloppy_plugins*")
# Seconds. A test has its own limit; this one is for a hang outside of tests, as at exit.
STEP_LIMIT = 900.0

SANITIZER_OPTIONS = {
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
    "ASAN_OPTIONS": "detect_leaks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
COMPILER = os.environ.get("CXX", "g++")
# Above this mmap_rnd_bits, compilers from before 2024 find no place for ThreadSanitizer's shadow.
TSAN_MOST_RANDOM_BITS = 28


Step = Callable[[], None]
Command = tuple[str, ...]


class Failed(Exception):
    """A step found something wrong; its output is on the terminal by then."""


class Outcome(NamedTuple):
    mark: str
    step: str
    note: str


class Report:
    """Runs steps and remembers how they went."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.start = time.monotonic()

    def step(self, name: str, action: Step) -> bool:
        print(f"\n== {name}", flush=True)
        return self._run(name, action)

    def _run(self, name: str, action: Step) -> bool:
        start = time.monotonic()
        try:
            action()
        except (Failed, Unusable) as problem:
            print(f"FAILED: {problem}", flush=True)
            mark = "FAIL"
        else:
            mark = "ok"
        self.outcomes.append(Outcome(mark, name, f"{time.monotonic() - start:.1f} s"))
        return mark == "ok"

    def steps_in_turn(self, actions: Mapping[str, Callable[[IO[bytes]], None]]) -> None:
        """Run steps, two at a time; each writes to a file, shown when the step has ended."""
        print(f"\n== {', '.join(actions)}: two at a time", flush=True)
        terminal = threading.Lock()

        def run_and_show(name: str, action: Callable[[IO[bytes]], None]) -> None:
            with tempfile.TemporaryFile() as output:
                self._run(name, partial(action, output))
                output.seek(0)
                with terminal:
                    print(f"\n== {name}", flush=True)
                    sys.stdout.buffer.write(output.read())
                    sys.stdout.flush()

        with ThreadPoolExecutor(2) as two:
            started = [two.submit(run_and_show, *step) for step in actions.items()]
            try:
                for each in started:
                    each.result()
            except BaseException:  # Ctrl-C, above all: what was started ends with us
                two.shutdown(wait=False, cancel_futures=True)
                for process in list(running):
                    os.killpg(process.pid, signal.SIGKILL)
                raise

    def skip(self, name: str, why: str) -> None:
        self.outcomes.append(Outcome("-", name, why))

    @property
    def failed(self) -> bool:
        return any(outcome.mark == "FAIL" for outcome in self.outcomes)

    def print_summary(self) -> None:
        width = max(len(outcome.step) for outcome in self.outcomes)
        print("\nSummary")
        for mark, step, note in self.outcomes:
            print(f"  {mark:<5}{step:<{width}}  {note}")
        minutes, seconds = divmod(round(time.monotonic() - self.start), 60)
        print(
            f"{'FAILED' if self.failed else 'all passed'} after {minutes} min {seconds} s",
            flush=True,
        )


# What `run` waits for.
running: set[subprocess.Popen[bytes]] = set()


def run(
    *command: str | Path, env: dict[str, str] | None = None, output: IO[bytes] | None = None
) -> None:
    """Run a command in the project's folder; raises Failed when it fails or takes too long."""
    words = [str(word) for word in command]
    # A group of its own: a test that hangs may have left children, and they end with it.
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    running.add(process)
    try:
        status = process.wait(STEP_LIMIT)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(words)}: still running after {STEP_LIMIT:.0f} s") from None
    finally:
        running.discard(process)
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status != 0:
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        raise Failed(f"{' '.join(words)}: {how}")


# -- lint ----------------------------------------------------------------------------------------


def python_trees() -> list[str]:
    return [name for name in ("python", "tests", "bench", ".ci") if (ROOT / name).is_dir()]


def cpp_sources() -> list[str]:
    files = [each for tree in ("cpp", "tests", "bench") for each in (ROOT / tree).rglob("*")]
    return sorted(str(file) for file in files if file.suffix in {".hpp", ".cpp", ".h", ".c"})


def tool(name: str) -> Path:
    return VENV / "bin" / name


def lint(report: Report, here: Interpreter) -> None:
    if not report.step("lint: build", partial(prepare, VENV, here, "lint", "test", "bench")):
        report.skip("lint", "not run")
        return
    ruff, clang_format = tool("ruff"), tool("clang-format")
    mypy = (python_of(VENV), "-m", "mypy")
    stubtest = (python_of(VENV), "-m", "mypy.stubtest", "--mypy-config-file", "pyproject.toml")
    typed = [tree for tree in ("python/offgil", "bench") if (ROOT / tree).is_dir()]
    report.step("ruff check", partial(run, ruff, "check", *python_trees()))
    report.step("ruff format", partial(run, ruff, "format", "--check", *python_trees()))
    report.step("clang-format", partial(run, clang_format, "--dry-run", "-Werror", *cpp_sources()))
    report.step("mypy --strict", partial(run, *mypy, *typed, ".ci/check.py", ".ci/bench_extras.py"))
    report.step(
        "stubtest offgil._core",
        partial(run, *stubtest, "--allowlist", ".ci/stubtest-allowlist", "offgil._core"),
    )


def rewrite(report: Report, here: Interpreter) -> None:
    if not report.step("format: build", partial(prepare, VENV, here, "lint")):
        return
    ruff, clang_format = tool("ruff"), tool("clang-format")
    report.step("ruff check --fix", partial(run, ruff, "check", "--fix", *python_trees()))
    report.step("ruff format", partial(run, ruff, "format", *python_trees()))
    report.step("clang-format", partial(run, clang_format, "-i", *cpp_sources()))


# -- C++ -----------------------------------------------------------------------------------------


def cpp(report: Report, _: Interpreter) -> None:
    report.step("C++ tests", partial(cpp_tests, "cpp", ""))
    report.step("C++ tests, ThreadSanitizer", partial(cpp_tests, "cpp-thread", "thread"))
    report.step("C++ tests, ASan and UBSan", partial(cpp_tests, "cpp-address", "address,undefined"))


def compilers(report: Report, here: Interpreter) -> None:
    try:
        newest = find_interpreter(MINORS[-1])
    except Unusable as why:
        report.skip("compilers of Debian's sid", str(why))
        newest = here
    for python in dict.fromkeys((here, newest)):
        venv = VENV if python is here else ROOT / ".venvs" / python.minor
        name = f"Python {python.release}"
        if not report.step(f"{name}: build", partial(prepare, venv, python, "test")):
            continue
        for compiler in ("g++", "clang++") if python.launcher else (COMPILER,):
            tree = f"{compiler.rstrip('+')}-{python.minor}"
            build = partial(cpp_tests, tree, "", python.launcher, python_of(venv), compiler)
            report.step(f"C++ tests and extension, {compiler} for {name}", build)


def cpp_tests(
    tree: str,
    sanitizer: str,
    launcher: Command = (),
    python: Path | None = None,
    compiler: str = COMPILER,
) -> None:
    """Build the C++ tests, with a Python the extension as well, and run them."""
    build = f"build/{tree}"
    # With sanitizers, optimising takes most of the time that the step has.
    flags = "-O1 -g1" if sanitizer else "-O2 -g"
    extension_options = ["-DOFFGIL_BUILD_PYTHON=OFF"]
    if python is not None:
        where = [*launcher, str(python), "-m", "pybind11", "--cmakedir"]
        pybind11 = subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
        extension_options = [f"-DPython_EXECUTABLE={python}", f"-Dpybind11_DIR={pybind11}"]
    run(
        *(*launcher, "cmake", "-S", ".", "-B", build, "-G", "Ninja", "--log-level=WARNING"),
        f"-DCMAKE_CXX_COMPILER={compiler}",
        "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
        f"-DCMAKE_CXX_FLAGS_RELWITHDEBINFO={flags}",
        f"-DCMAKE_COMPILE_WARNING_AS_ERROR={environment.warnings_are_errors():d}",
        *extension_options,
        "-DOFFGIL_BUILD_TESTS=ON",
        f"-DOFFGIL_SANITIZE={sanitizer}",
    )
    run(*launcher, "cmake", "--build", build, "--parallel", str(environment.jobs()))
    prefix = fixed_addresses() if sanitizer == "thread" else []
    ctest = ("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error")
    run(*launcher, *prefix, *ctest, env=SANITIZER_OPTIONS)


def fixed_addresses() -> list[str]:
    """What to put before a command where the kernel spreads addresses too far for its shadow."""
    try:
        bits = int(Path("/proc/sys/vm/mmap_rnd_bits").read_text())
    except (OSError, ValueError):
        return []
    if bits <= TSAN_MOST_RANDOM_BITS:
        return []
    prefix = ["setarch", os.uname().machine, "--addr-no-randomize"]
    try:
        subprocess.run([*prefix, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # a container may forbid it
        return []
    return prefix


# -- Python --------------------------------------------------------------------------------------


def quick(report: Report, here: Interpreter) -> None:
    build = partial(prepare, VENV, here, "test", "users")
    if report.step(f"Python {here.release}: build", build):
        report.step(f"Python {here.release}: pytest", partial(run, python_of(VENV), "-m", "pytest"))


def python(report: Report, here: Interpreter) -> None:
    # Strangers' programs that run our executors, and the web service, are large: on the Python of
    # .venv only.
    found = list(environments(report, here, "users", "service"))
    # Debug mode takes longest, so it begins; on the oldest and the newest Python only.
    in_debug_mode = {"PYTHONASYNCIODEBUG": "1"}
    in_full = dict(found if len(found) < 3 else (found[0], found[-1]))
    without_long = [f"--ignore-glob=*/{name}" for name in LONG]
    runs = {
        f"{name}: pytest, asyncio debug": partial(pytest, python, without_long, in_debug_mode)
        for name, python in in_full.items()
    }
    runs |= {
        f"{name}: pytest": partial(pytest, python, [] if name in in_full else without_long, {})
        for name, python in found
    }
    report.steps_in_turn(runs)


def pytest(python: Command, options: list[str], env: dict[str, str], output: IO[bytes]) -> None:
    run(*python, "-m", "pytest", "-p", "no:cacheprovider", *options, env=env, output=output)


def soak(report: Report, here: Interpreter) -> None:
    for name, python in environments(report, here):
        pytest = partial(run, *python, "-m", "pytest", "tests/test_exit.py")
        report.step(f"{name}: exit and fork", partial(pytest, env={"OFFGIL_EXIT_REPEATS": "50"}))


def conformance(report: Report, here: Interpreter) -> None:
    for name, python in environments(report, here):
        suite = partial(run, *python, "tests/conformance/run.py")
        report.step(f"{name}: CPython's executor tests", suite)


def environments(
    report: Report, here: Interpreter, *extras_here: str
) -> Iterator[tuple[str, Command]]:
    """Name and Python of every interpreter found, with offgil and its tests' needs installed.

    `extras_here` come on top for the interpreter that runs this.
    """
    for minor in MINORS:
        try:
            interpreter = here if here.minor == minor else find_interpreter(minor)
        except Unusable as why:
            report.skip(f"Python {minor}", str(why))
            continue
        venv = VENV if interpreter is here else ROOT / ".venvs" / minor
        name = f"Python {interpreter.release}"
        extras = ("test", *(extras_here if interpreter is here else ()))
        if report.step(f"{name}: build", partial(prepare, venv, interpreter, *extras)):
            yield name, (*interpreter.launcher, str(python_of(venv)))
        else:
            report.skip(f"{name}: tests", "not run")


def find_interpreter(minor: str) -> Interpreter:
    """The newest usable CPython of a minor version; raises Unusable.

    Of pyenv, else on the PATH, else in the folder that 'make deps-pythons' makes.
    """
    why = Unusable(f"no python{minor} found")
    for launcher, command in candidates(minor):
        try:
            interpreter = environment.probe(command, launcher)
        except Unusable as problem:  # such as pyenv's stand-in for a version that is not chosen
            why = problem
            continue
        if interpreter.minor == minor:
            return interpreter
    raise why


def candidates(minor: str) -> Iterator[tuple[Command, str]]:
    root = os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    installed = Path(root, "versions").glob(f"{minor}.*/bin/python")
    for command in sorted(installed, key=patch_number, reverse=True):
        yield (), str(command)
    on_path = shutil.which(f"python{minor}")
    if on_path:
        yield (), on_path
    in_sid = (str(ROOT / ".ci" / "debian-sid"), "run")
    if subprocess.run([*in_sid, f"python{minor}", "-V"], capture_output=True).returncode == 0:
        yield in_sid, f"python{minor}"


def patch_number(command: Path) -> int:
    patch = command.parent.parent.name.rpartition(".")[2]
    return int(patch) if patch.isdigit() else -1  # pre-releases and free-threaded builds last


# ------------------------------------------------------------------------------------------------


def prepare(venv: Path, interpreter: Interpreter, *extras: str) -> None:
    environment.ensure(venv, interpreter, set(extras))


GROUPS = {
    "lint": lint,
    "cpp": cpp,
    "python": python,
    "soak": soak,
    "compilers": compilers,
    "conformance": conformance,
    "quick": quick,
    "format": rewrite,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", metavar="group", nargs="+", choices=GROUPS)
    groups = parser.parse_args().groups
    # As Ctrl-C does: `run` then ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        here = environment.current()
    except Unusable as problem:
        sys.exit(f"offgil: {problem}")
    report = Report()
    try:
        for group in groups:
            GROUPS[group](report, here)
    except KeyboardInterrupt:
        report.skip("interrupted", "the rest was not run")
        report.print_summary()
        sys.exit(128 + signal.SIGINT)
    report.print_summary()
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
