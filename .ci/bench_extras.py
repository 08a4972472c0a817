"""What the comparison with the peers and the web service need, besides offgil, in .venv.

    python bench_extras.py peers|service

peers    every package of the extra that installs, and the Rust crate where there is cargo; what
         does not install is said and left out
service  the extra, and the native work in bench/service/native

What is compiled is kept under build/, and compiled anew only when its sources changed. Standard
library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import environment
from environment import ROOT, VENV, Unusable, python_of

# Seconds: a resolver or a compiler that takes longer hangs.
LIMIT = 900.0


def main() -> None:
    what = sys.argv[1:]
    if what not in (["peers"], ["service"]):
        sys.exit(__doc__)
    try:
        if what == ["peers"]:
            peers()
        else:
            service()
    except Unusable as problem:
        sys.exit(f"offgil: {problem}")


def peers() -> None:
    environment.ensure(VENV, environment.current(), {"bench"})
    wanted = environment.requirements(["peers"])
    # All at once agree on their dependencies; one by one, those that can come do.
    if pip(*wanted):
        for requirement in wanted:
            if why := pip(requirement):
                print(f"{requirement} does not install: {why}")
    if shutil.which("cargo") is None:
        print("pyo3-async-runtimes is left out: there is no cargo here")
    elif why := install(ROOT / "bench" / "peers_rust"):
        print(f"pyo3-async-runtimes is left out: {why}")


def service() -> None:
    environment.ensure(VENV, environment.current(), {"bench", "service"})
    if why := install(ROOT / "bench" / "service" / "native", "--no-build-isolation"):
        raise Unusable(f"bench/service/native does not build: {why}")


def install(project: Path, *options: str) -> str:
    """Build and install a small project of ours unless it stands there; say why it failed."""
    digest = environment.fingerprint(project, ROOT / "cpp" / "include")
    state = VENV / f"{project.name}-build"
    if state.is_file() and state.read_text() == digest:
        return ""
    state.unlink(missing_ok=True)
    if why := pip("--force-reinstall", "--no-deps", *options, str(project)):
        return why
    state.write_text(digest)
    return ""


def pip(*arguments: str) -> str:
    """Install; return nothing, or the last thing that pip said about why not."""
    command = [str(python_of(VENV)), "-m", "pip", "install", "--quiet", *arguments]
    environ = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "CARGO_TARGET_DIR": str(ROOT / "build" / "peers_rust"),
        # The build tools of --no-build-isolation.
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"still not done after {LIMIT:.0f} s"
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
    return (errors or done.stderr.splitlines() or ["pip said nothing"])[0]


if __name__ == "__main__":
    main()
