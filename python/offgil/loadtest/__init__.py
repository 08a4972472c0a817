"""What ``python -m offgil loadtest`` runs: any function, through any door, under any load.

A parent (`command`, `session`) has each configuration measured in a process of its own (`child`,
`measure`), where event loops on threads of their own (`loop_thread`) load a door (`doors`,
`loads`). What comes back (`results`) is shown (`progress`, `text`), judged (`assertion`), kept
(`report`, `html`) and compared (`compare`). All but the command line (`options`) needs the extra
``loadtest``: in a clone, ``pip install '.[loadtest]'``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from offgil.loadtest.options import parse

__all__ = ["main"]


def main(argv: Sequence[str], prog: str = "python -m offgil loadtest") -> int:
    """Run the load test that the arguments ask for and return its exit code.

    Raises ModuleNotFoundError where the extra is missing and something is to be measured.
    """
    options = parse(argv, prog)
    from offgil.loadtest import command  # here, so that --help needs nothing

    return command.run(options, shlex.join([*prog.split(), *argv]))
