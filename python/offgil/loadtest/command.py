"""The command: measure, show, judge and keep; or compare what was kept."""

from __future__ import annotations

import sys
from pathlib import Path

from offgil._machine import Environment
from offgil.loadtest import assertion, children, session, text
from offgil.loadtest.call import CannotRun
from offgil.loadtest.compare import compare
from offgil.loadtest.options import Options
from offgil.loadtest.progress import console, watcher
from offgil.loadtest.quantity import duration
from offgil.loadtest.report import Report, jobs_missing_in, write_files

#: What `run` returns besides 0. CANNOT_RUN is what argparse returns too.
WRONG_RESULT = 1
CANNOT_RUN = 2
ASSERTION_FAILED = 3
INTERRUPTED = 130


def run(options: Options, command: str) -> int:
    """Do what the options ask for and return the exit code; reports quote ``command``."""
    try:
        if options.compare is not None:
            compare(console(), *options.compare)
            return 0
        return _measure(options, command)
    except CannotRun as problem:
        print(f"offgil: error: {problem}", file=sys.stderr)
        return CANNOT_RUN
    except KeyboardInterrupt:
        return INTERRUPTED


def _measure(options: Options, command: str) -> int:
    terminal = console()
    if options.html is not None:
        from offgil.loadtest import html  # noqa: F401 (what it needs must not be missing afterwards)
    environment = Environment.of_this_machine()
    terminal.print(str(environment), markup=False, soft_wrap=True)
    for warning in environment.warnings():
        terminal.print(f"[yellow]warning:[/] {warning}")
    first = options.configurations[0]
    calling = ", and calling it directly" if first.verify and first.expect is None else ""
    terminal.print(f"finding each function{calling} ...")  # which may never return
    for line in children.check(options.configurations):
        terminal.print(line, markup=False, soft_wrap=True)
    terminal.print(_plan(options))

    total = len(options.configurations) * options.rounds
    with watcher(terminal, total) as watching:
        outcome = session.run(options.configurations, options.rounds, watching)
    report = Report(command, environment, outcome.results, outcome.complete)
    report.failed_assertions = assertion.failures(options.assertions, outcome.results)
    text.show(terminal, report)
    try:
        written = write_files(
            report, json_path=options.json, csv_path=options.csv, html_path=options.html
        )
    except OSError as error:
        raise CannotRun(f"cannot write the report: {error}") from error
    trace = first.trace
    if trace is not None and (missing := jobs_missing_in(Path(trace))) is not None:
        if missing:
            terminal.print(
                f"[yellow]warning:[/] the trace was full: {missing:,} jobs are not in it; "
                "give it fewer, by -n or -z"
            )
        written = [*written, Path(trace)]
    for path in written:
        terminal.print(f"written: {path}", markup=False, soft_wrap=True)
    if outcome.problem is not None:
        raise outcome.problem
    return _exit_code(report)


def _plan(options: Options) -> str:
    number, rounds = len(options.configurations), options.rounds
    what = f"{number} configuration{'s' * (number > 1)}, {rounds} round{'s' * (rounds > 1)} each"
    seconds = options.configurations[0].seconds
    if seconds is None:
        return what
    one = seconds + options.configurations[0].warmup
    return f"{what}: about {duration(one * number * rounds)}, besides starting processes"


def _exit_code(report: Report) -> int:
    if not report.complete:
        return INTERRUPTED
    if any(not each.figures["jobs"] or each.figures["wrong"] for each in report.results):
        return WRONG_RESULT
    return ASSERTION_FAILED if report.failed_assertions else 0
