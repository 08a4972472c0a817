"""What a request to the heavy endpoint computes: a password's key, and a document compressed."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Callable

#: Returns the key in hex, and the size of the compressed document.
Seal = Callable[[str, str, int, str], tuple[str, int]]

SALT = "a salt that every request shares, so that every response can be checked"
#: About as much hashing as compressing.
ITERATIONS = 5_000


def document() -> str:
    """Return 64 KiB of words, always the same."""
    chosen = random.Random(5).choices(["event", "loop", "worker", "job", "lane", "batch"], k=16_384)
    return " ".join(chosen)[: 64 * 1024]


def standard_seal(password: str, salt: str, iterations: int, text: str) -> tuple[str, int]:
    """Compute it by the standard library, which releases the GIL for both parts."""
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), iterations)
    return key.hex(), len(zlib.compress(text.encode()))


def chosen_seal(work: str) -> Seal:
    """Return the function for ``native`` (bench/service/native) or ``stdlib``."""
    if work == "stdlib":
        return standard_seal
    from heavy_work import seal

    native: Seal = seal
    return native
