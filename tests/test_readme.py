"""The README's snippets do what it says."""

from __future__ import annotations

import re
from pathlib import Path

from support import check_script

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_first_python_snippet() -> None:
    """It runs as it stands, and prints three results."""
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) == 1
    assert check_script(snippets[0]).splitlines() == [
        "2880067194370816120",
        "[0, 1, 1, 2, 3, 5, 8, 13, 21, 34]",
        "[1, 2, 3]",
    ]


def test_forty_lines_are_enough_to_decide() -> None:
    """What it is, for whom and for whom not, the commands, the snippets and the limits."""
    beginning = "\n".join(README.splitlines()[:40])
    for part in ("**For you if**", "**Not for you if**", "make demo", "make test"):
        assert part in beginning
    assert beginning.count("```") == 4, "a snippet in Python and one in C++"
    assert "**Limits.**" in beginning and beginning.endswith(".\n"), "to the end of the limits"
