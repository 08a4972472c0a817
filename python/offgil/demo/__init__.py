"""What ``python -m offgil demo`` runs: two articles' tables, and 20 000 small jobs, measured here.

One module measures one table and knows nothing of terminals; ``render`` draws them all.
Needs ``rich``, which the extra ``demo`` brings: in a clone, ``pip install '.[demo]'``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from offgil._machine import Environment
from offgil.demo import first_article, render, second_article, small_jobs

__all__ = ["run"]


def run(*, seconds: float, jobs: int, json_path: Path | None = None) -> bool:
    """Measure and print the three tables; return whether every result was right.

    ``seconds`` is how long each of the first article's jobs sleeps, ``jobs`` how many small ones
    the third table runs through each door. Raises OSError if ``json_path`` cannot be written.
    """
    console = render.console()
    environment = Environment.of_this_machine()
    render.environment(console, environment)
    with render.progress(console, _steps()) as announce:
        first = first_article.measure(seconds, announce)
        second = second_article.measure(announce)
        third = small_jobs.measure(jobs, announce)
    render.first_article(console, first)
    render.second_article(console, second)
    render.small_jobs(console, third)
    correct = first.correct and second.correct and third.correct
    _conclude(console, correct)
    if json_path is not None:
        report = {
            "environment": asdict(environment),
            "correct": correct,
            "first_article": asdict(first),
            "second_article": asdict(second),
            "small_jobs": asdict(third),
        }
        json_path.write_text(json.dumps(report, indent=2) + "\n")
    return correct


def _steps() -> int:
    return first_article.STEPS + second_article.STEPS + small_jobs.STEPS


def _conclude(console: Console, correct: bool) -> None:
    if correct:
        console.print("Every result was checked, and right.")
    else:
        console.print("[bold red]Not every result was right: see the tables.[/]")
