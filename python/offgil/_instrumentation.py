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
    return None if _is_standard(found) else _rebuilt(found, submit)


def _is_standard(found: Any) -> bool:
    return (
        type(found) is FunctionType  # what wrapt makes says that it is one, too
        and found.__globals__ is vars(concurrent.futures.thread)
        and found.__code__.co_name == "submit"
    )


def _rebuilt(found: Any, submit: Submit) -> Submit | None:
    if _is_standard(found):
        return submit
    if hasattr(found, "_self_wrapper"):
        return _rebuilt_of_wrapt(found, submit)
    if type(found) is FunctionType:
        return _rebuilt_of_function(found, submit)
    return None


def _rebuilt_of_wrapt(found: Any, submit: Submit) -> Submit | None:
    inner, wrapper = _rebuilt(found.__wrapped__, submit), found._self_wrapper
    if inner is None:
        return None

    def submit_by_wrapper(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return wrapper(MethodType(inner, self), self, args, kwargs)

    return submit_by_wrapper


def _rebuilt_of_function(found: FunctionType, submit: Submit) -> Submit | None:
    """Return a copy of the function that has ``submit`` where its closure has the standard one."""
    cells = [_rebuilt_cell(cell, submit) for cell in found.__closure__ or ()]
    if not any(cells):
        return None
    closure = tuple(new or old for new, old in zip(cells, found.__closure__ or (), strict=True))
    made = FunctionType(
        found.__code__, found.__globals__, found.__name__, found.__defaults__, closure
    )
    made.__kwdefaults__ = found.__kwdefaults__
    return made


def _rebuilt_cell(cell: CellType, submit: Submit) -> CellType | None:
    try:
        inner = _rebuilt(cell.cell_contents, submit)
    except ValueError:  # it is empty
        return None
    return None if inner is None else CellType(inner)
