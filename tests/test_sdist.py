"""What a source distribution has: all that builds and tests it, nothing that cannot run there."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("scikit_build_core", reason="what builds it is not installed here")

ROOT = Path(__file__).parent.parent


def test_a_source_distribution_has_what_can_be_used(tmp_path: Path) -> None:
    """No target of the Makefile could run without .ci, which is for who works in a clone."""
    code = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, timeout=60)
    [archive] = tmp_path.glob("offgil-*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert names >= {
        *("CMakeLists.txt", "LICENSE", "README.md", "cpp/include/offgil/sdk.hpp", "pyproject.toml"),
        *("python/offgil/__init__.py", "tests/conftest.py", "tests/cpp/CMakeLists.txt"),
    }
    unusable = {"Makefile", ".ci", "bench", ".gitignore", ".clang-format"}
    assert not {name for name in names if name.split("/")[0] in unusable}
    assert not {name for name in names if name.startswith("tests/test_bench_")}
