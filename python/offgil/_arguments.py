"""What the commands' arguments may be; for argparse's ``type=``."""

from __future__ import annotations

import argparse
import errno
import os
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
    """Try at once whether the file can be written: a typing error must not cost a minute.

    What is there stays as it is, and what is not there is not there afterwards.
    """
    path = Path(text)
    try:
        _try_to_write(path)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from error
    return path


def _try_to_write(path: Path) -> None:
    if path.is_fifo():
        # To open it is to wait for a reader, and to close it is the end of what that reads.
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return
    how = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    try:
        os.close(os.open(path, how))
    except FileNotFoundError:
        target = os.path.realpath(path)  # a link may lead to a file that is not there yet
        os.close(os.open(target, how | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(target)
