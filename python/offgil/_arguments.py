"""What the commands' arguments may be; for argparse's ``type=``."""

from __future__ import annotations

import argparse
from pathlib import Path


def positive_count(text: str) -> int:
    """Return a whole number above 0."""
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return count


def writable_path(text: str) -> Path:
    """Open the file at once: a typing error must not cost a minute of measuring."""
    path = Path(text)
    try:
        path.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from error
    return path
