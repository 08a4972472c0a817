"""A peer: somebody whom offgil is compared with, and how to open it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Generic, Literal, TypeAlias, TypeVar

from workloads import Contender

#: Takes numbers and returns what the jobs made of them, in order.
Batch = Callable[[range], list[int]]


class UnavailableError(Exception):
    """A peer that cannot be measured here; the text says why."""


Door_co = TypeVar("Door_co", covariant=True)


@dataclass(frozen=True)
class Peer(Generic[Door_co]):
    """Somebody who runs functions on other threads; ``open`` opens it as its users do."""

    name: str
    open: Callable[[], Door_co]
    loop: Literal["asyncio", "uvloop", "trio", "none"] = "asyncio"
    #: Whose versions are printed; Python's own has none.
    packages: tuple[str, ...] = ()
    note: str = ""
    #: Tells what cannot be read from an installed package.
    more_versions: Callable[[], str] = str
    #: Jobs of one pass, where the usual number would take minutes.
    most_jobs: int | None = None

    @property
    def title(self) -> str:
        """Name the peer and, if it is not the usual one, the loop it runs on."""
        return f"{self.name} ({self.loop})" if self.loop == "uvloop" else self.name

    def versions(self) -> str:
        """Return the packages the peer consists of, with their versions."""
        installed = [f"{name} {version(name)}" for name in self.packages]
        return ", ".join(filter(None, [*installed, self.more_versions()]))


AwaitedPeer: TypeAlias = Peer[AbstractAsyncContextManager[Contender]]
SynchronousPeer: TypeAlias = Peer[AbstractContextManager[Batch]]
