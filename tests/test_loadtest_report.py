"""What the load test writes and compares: the HTML page in a browser, JSON there and back."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
from loadtest_made_up import a_report, a_result, a_round, histogram

import offgil
from offgil.__main__ import main
from offgil.loadtest import assertion, html
from offgil.loadtest.call import CannotRun
from offgil.loadtest.report import Report
from offgil.loadtest.results import Result
from offgil.loadtest.rounds import Timeline

SCHEMA = Path(offgil.__file__).parent / "loadtest" / "report.schema.json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# A browser's first start takes a while where the CPUs are busy.
BROWSER_LIMIT = 50


def some_results() -> list[Result]:
    """Return closed and open loops, doors that count and one that does not, and a nasty name."""
    open_round = a_round(target_rate=100.0, corrected=histogram(*range(50, 150)))
    silent = Timeline([0.5, 1.0], [90.0, 110.0], [4, 4], [1, 3], [0.0, 0.1], [])
    return [
        a_result(a_round(), a_round(completed=90)),
        a_result(
            a_round(pool=None, timeline=silent), command="offgil.examples:spin 1 -d to_thread"
        ),
        a_result(open_round, command="offgil.examples:spin 1 -R 100"),
        a_result(a_round(), command="builtins:len '</script><b>[red]&amp;'"),
    ]


# --------------------------------------------------------------------------------------------------
# in a browser


class Page(NamedTuple):
    """What a browser made of a file."""

    dom: str
    console: list[str]
    #: Of the upper left corner: red, green, blue.
    background: tuple[int, int, int]


def browse(file: Path, *, dark: bool = False) -> Page:
    """Open the file in headless Chromium and wait until its scripts have run."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    screenshot = file.with_suffix(".png")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",  # it refuses to run as root otherwise; the page is our own
            "--disable-gpu",
            f"--user-data-dir={file.with_suffix('')}-profile",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--virtual-time-budget=20000",
            "--enable-logging=stderr",
            f"--screenshot={screenshot}",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=BROWSER_LIMIT,
    )
    assert done.returncode == 0, done.stderr
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Page(done.stdout, messages, first_pixel(screenshot.read_bytes()))


def first_pixel(png: bytes) -> tuple[int, int, int]:
    """Return the colour of a PNG's first pixel, which no filter changes."""
    data, position = b"", 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        if png[position + 4 : position + 8] == b"IDAT":
            data += png[position + 8 : position + 8 + length]
        position += 12 + length
    red, green, blue = zlib.decompress(data)[1:4]
    return red, green, blue


def test_the_page_draws_every_chart(tmp_path: Path) -> None:
    """No chart is empty, the console is silent, and the page is light."""
    file = tmp_path / "report.html"
    file.write_text(html.page(a_report(*some_results())), encoding="utf-8")
    page = browse(file)
    assert page.console == []
    charts = re.split(r'<div class="chart(?: wide)?">', page.dom)[1:]
    # An overview, and three groups with four charts and the workers each.
    assert len(charts) == 2 + 3 * 5
    for chart in charts:
        assert 'class="main-svg"' in chart
        assert re.search(r'<g class="trace scatter|<g class="hm"><image', chart), chart[:500]
    assert min(page.background) > 200


def test_a_broken_page_is_noticed_and_the_dark_one_is_dark(tmp_path: Path) -> None:
    """The test above would see an error in the console, and a request that leaves the machine."""
    file = tmp_path / "broken.html"
    text = html.page(a_report(*some_results()))
    library = text[text.index("<script>") : text.index("</script>")]
    foreign = '<img src="https://offgil.invalid/x.png">'
    file.write_text(text.replace(library, "<script>").replace("<h1>", f"{foreign}<h1>", 1))
    page = browse(file, dark=True)
    messages = " ".join(page.console)
    assert "Plotly is not defined" in messages
    assert "Content Security Policy" in messages
    assert max(page.background) < 60


def test_the_page_holds_names_as_text() -> None:
    """No function, argument or error message can become markup."""
    page = html.page(a_report(*some_results()))
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;[red]&amp;amp;" in page


# --------------------------------------------------------------------------------------------------
# JSON, assertions, comparison


def test_json_comes_back_as_it_went(tmp_path: Path) -> None:
    """The figures are the same, made of the same rounds; the schema allows it."""
    written = a_report(*some_results())
    path = tmp_path / "report.json"
    written.to_json(path)
    jsonschema.validate(json.loads(path.read_text()), json.loads(SCHEMA.read_text()))
    read = Report.from_json(path)
    assert [r.figures for r in read.results] == [r.figures for r in written.results]
    assert read == written


def test_the_schema_is_strict(tmp_path: Path) -> None:
    """A figure more or less is noticed."""
    path = tmp_path / "report.json"
    a_report(*some_results()).to_json(path)
    data = json.loads(path.read_text())
    del data["results"][0]["figures"]["p99"]
    with pytest.raises(jsonschema.ValidationError, match="p99"):
        jsonschema.validate(data, json.loads(SCHEMA.read_text()))


def test_an_assertion_about_what_nobody_counts_fails() -> None:
    """It does not hold just because the figure is missing."""
    parsed = assertion.parse("batches_per_job<1000")
    counted, silent, *_ = some_results()
    assert assertion.failures([parsed], [counted]) == []
    (failure,) = assertion.failures([parsed], [counted, silent])
    assert "there is no such figure for spin(1), to_thread" in failure


def test_every_figure_that_can_be_asserted_is_there() -> None:
    """And a name that no result has breaks nothing but its own assertion."""
    result = some_results()[2]
    stems = ("mean", "max", "p1", "p50", "p97.5", "p99.99", "p100", "cpu_per_job", "jobs_per_job")
    prefixes = ("", "uncorrected_", "lag_", "cpu_", "waiting_")
    made_up = {prefix + stem for prefix in prefixes for stem in stems}
    accepted = set()
    for name in {*made_up, *result.figures, *assertion.TIMES, *assertion.COUNTS}:
        for bound in ("1s", "1"):
            with contextlib.suppress(CannotRun):
                accepted.add(assertion.parse(f"{name}<{bound}").figure)
    assert accepted > {*assertion.TIMES, *assertion.COUNTS, "uncorrected_p97.5"}
    for name in accepted:
        result.figure(name)
    assert "no such figure" in (assertion.Assertion("lag_mean", "<", 1.0).failure(result) or "")


def test_two_reports_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What both have stands side by side with the ratio, the rest is named."""
    first, second, third, fourth = some_results()
    faster = a_result(a_round(completed=300), a_round(completed=200))
    one, other, apart = (tmp_path / f"{name}.json" for name in ("one", "other", "apart"))
    a_report(first, second, fourth).to_json(one)
    a_report(faster, third, fourth).to_json(other)
    a_report(third).to_json(apart)
    assert main(["loadtest", "--compare", str(one), str(other)]) == 0
    output = capsys.readouterr().out
    (row,) = [line for line in output.splitlines() if "spin(1), pool" in line and "jobs/s" in line]
    assert "│ 95 " in row
    assert "│ 250 " in row
    assert "│ 2.63 " in row
    assert "only in A: spin(1), to_thread" in output
    assert "only in B: spin(1), pool, asyncio, 2 workers, open, 100/s" in output
    assert "[red]&amp;" in output

    assert main(["loadtest", "--compare", str(one), str(apart)]) == 2
    assert "have no configuration in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        {"rounds": []},
        {"rounds": [{}]},
        {"latencies": "no histogram"},
        {"latencies": histogram(1)[:-9]},
        {"completed": "100"},
        {"completed": float("nan")},
        {"seconds": 0},
        {"timeline": None},
        {"workers": "two"},
    ],
    ids=str,
)
def test_a_damaged_report_cannot_be_compared(
    damage: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the file's name, where the figures themselves cannot be made of it."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    a_report(a_result(a_round())).to_json(good)
    data = json.loads(good.read_text())
    (result,) = data["results"]
    for place in (result, result["configuration"], *result["rounds"]):
        place.update({key: value for key, value in damage.items() if key in place})
    bad.write_text(json.dumps(data))
    assert main(["loadtest", "--compare", str(good), str(bad)]) == 2
    assert f"{str(bad)!r} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no load test's report"),
        ('{"format": "offgil-loadtest/0"}', "is no load test's report"),
        ('{"format": "offgil-loadtest/1", "command": ""}', "is damaged"),
    ],
)
def test_what_is_no_report_cannot_be_compared(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what is wrong with the file."""
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    assert main(["loadtest", "--compare", str(path), str(path)]) == 2
    assert message in capsys.readouterr().err
