"""What others put around the standard executor's `submit`, as tracers do, put around ours."""

from __future__ import annotations

import concurrent.futures.thread
from collections.abc import Callable
from types import CellType, FunctionType, MethodType
from typing import Any

Submit = Callable[..., Any]


def put_around(found: Any, submit: Submit) -> Submit | None:
    """Return what is around the standard method, around ``submit`` instead.

    ``found`` is ``ThreadPoolExecutor.submit`` as it is in the class. None where that is the
    standard method itself, or does not show where it keeps it: wrappers made with wrapt do, as
    OpenTelemetry's, and functions that have it in their closure, as Sentry's.
    """
    return None if _is_standard(found) else _Rebuilding(submit).of(found)


def _is_standard(found: Any) -> bool:
    return (
        type(found) is FunctionType  # what wrapt makes says that it is one, too
        and found.__globals__ is vars(concurrent.futures.thread)
        and found.__code__.co_name == "submit"
    )


def _is_of_wrapt(found: Any) -> bool:
    """Whether it is a wrapper of wrapt's, or of a copy of wrapt; other proxies are not asked."""
    names = ("FunctionWrapper", "BoundFunctionWrapper")
    return any(each.__name__ in names for each in type(found).__mro__)


class _Rebuilding:
    """Looks for the standard method inside of wrappers, each of which it looks into once."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._seen: set[int] = set()

    def of(self, found: Any) -> Submit | None:
        """Return `found` with ours in the place of the standard method; None without that."""
        if _is_standard(found):
            return self._submit
        if id(found) in self._seen:
            return None
        self._seen.add(id(found))
        if _is_of_wrapt(found):
            return self._of_wrapt(found)
        if type(found) is FunctionType:
            return self._of_function(found)
        return None

    def _of_wrapt(self, found: Any) -> Submit | None:
        inner, wrapper = self.of(found.__wrapped__), found._self_wrapper
        if inner is None:
            return None

        def submit_by_wrapper(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            enabled = getattr(found, "_self_enabled", None)  # a bool, or a callable
            if enabled is not None and not (enabled() if callable(enabled) else enabled):
                return inner(self, *args, **kwargs)
            return wrapper(MethodType(inner, self), self, args, kwargs)

        return submit_by_wrapper

    def _of_function(self, found: FunctionType) -> Submit | None:
        """Return a copy whose closure has ours where that of the function has the standard one."""
        cells = found.__closure__ or ()
        rebuilt = [self._of_cell(cell) for cell in cells]
        if not any(rebuilt):
            return None
        closure = tuple(new or old for new, old in zip(rebuilt, cells, strict=True))
        made = FunctionType(
            found.__code__, found.__globals__, found.__name__, found.__defaults__, closure
        )
        made.__kwdefaults__ = found.__kwdefaults__
        return made

    def _of_cell(self, cell: CellType) -> CellType | None:
        try:
            contents = cell.cell_contents
        except ValueError:  # it is empty
            return None
        inner = self.of(contents)
        return None if inner is None else CellType(inner)
