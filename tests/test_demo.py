"""The demo: every number is readable on any terminal, and no sentence says what was not seen."""

from __future__ import annotations

import io
import re

import pytest
from support import run_script

from offgil.demo import first_article, render
from offgil.demo.first_article import FirstArticle, Row
from offgil.demo.second_article import (
    BOTH_HOLD,
    HOLDING_FIRST,
    ON_POOL,
    RELEASING_FIRST,
    NestedRelease,
    Run,
    SecondArticle,
)
from offgil.demo.small_jobs import OFFGIL, RUN_IN_EXECUTOR, TO_THREAD, Door, SmallJobs
from offgil.demo.ticker import LoopActivity

ACTIVITY = LoopActivity(1101, 1202, 0.123)
FIRST = FirstArticle(
    5.0, ACTIVITY, (Row("ThreadPoolExecutor, scoped guard", 25.01, ACTIVITY, True),) * 2
)
SMALL = SmallJobs(
    2,
    256,
    (
        Door(RUN_IN_EXECUTOR, 20_000, 12_345.0, 1.0, 0),
        Door(TO_THREAD, 20_000, 11_234.0, 0.91, 0),
        Door(OFFGIL, 20_000, 1_046_789.0, 84.8, 0, 0.0001, 0.0123),
    ),
)


def second(releasing_first: float, holding_first: float) -> SecondArticle:
    ratios = {
        BOTH_HOLD: 2.01,
        RELEASING_FIRST: releasing_first,
        HOLDING_FIRST: holding_first,
        ON_POOL: 1.02,
    }
    return SecondArticle(
        123_456_789,
        2.0,
        tuple(Run(label, 0.351 * ratio, ratio, True) for label, ratio in ratios.items()),
        (NestedRelease("pybind11's", "killed by SIGABRT", "Fatal Python error: " * 5, True),),
    )


def drawn(draw: object, result: object, width: int) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORCE_COLOR", "1")  # as on a terminal
        patch.setenv("COLUMNS", str(width))
        console = render.console()
        assert console.is_terminal
        console.file = file = io.StringIO()
        draw(console, result)  # type: ignore[operator]
    return re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_figure_is_cut(width: int) -> None:
    """A narrow terminal breaks lines, and never a number ("46,...")."""
    table = drawn(render.small_jobs, SMALL, width)
    for figure in (
        RUN_IN_EXECUTOR,
        TO_THREAD,
        OFFGIL,
        "12,345",
        "11,234",
        "1,046,789",
        "84.8 x",
        "0.0001",
        "0.0123",
    ):
        assert figure in table, table
    table = drawn(render.first_article, FIRST, width)
    for figure in ("25.01 s", "1101 of 1202", "123.0 ms"):
        assert figure in table, table
    table = drawn(render.second_article, second(1.0, 2.0), width)
    for figure in ("0.706 s", "2.01 x", "killed by SIGABRT"):
        assert figure in table, table


@pytest.mark.parametrize(("one", "other", "told"), [(1.05, 2.0, True), (2.09, 2.31, False)])
def test_the_order_matters_where_it_was_seen_to(one: float, other: float, told: bool) -> None:
    """That it does is said of a clear difference, whichever way round, and not of noise."""
    for result in (second(one, other), second(other, one)):
        text = " ".join(drawn(render.second_article, result, 100).split())
        assert ("which starts first" in text) == told
        assert "two jobs on offgil took 1.02" in text.lower()


def test_the_articles_guarded_function_runs_on_our_pool() -> None:
    """The one that releases the GIL in its body, unchanged, gives what it gives on an executor."""
    steps: list[str] = []
    result = first_article.measure(0.01, steps.append)
    assert result.correct
    assert len(steps) == first_article.STEPS
    labels = [row.label for row in result.rows]
    assert labels[-2:] == ["offgil.Pool, scoped guard", "offgil.Pool"]
    assert "ThreadPoolExecutor, scoped guard" in labels


@pytest.mark.slow
def test_progress_is_not_part_of_the_output() -> None:
    """Where standard output is no terminal the steps are told on standard error."""
    code = "from offgil.__main__ import main; main(['demo', '--seconds', '0.01', '--jobs', '100'])"
    done = run_script(code, limit=60)
    assert done.returncode == 0
    steps = re.compile(r"^ *\d+/\d+ ", re.MULTILINE)
    assert not steps.search(done.stdout)
    assert steps.search(done.stderr)
    assert "Every result was checked, and right." in done.stdout
