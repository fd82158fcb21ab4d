"""The scripts of EXAMPLES.md and README.md run as they are printed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SLOW = (
    "One fit", "Choose a sampler", "Open one result", "A flow", "A spectrum", "A star",
    "A catalogue",
)  # fmt: skip
PARTS = re.compile(r"^#+ (?P<heading>[^\n]*)$|^```python\n(?P<script>.*?)^```$", re.M | re.S)


def scripts(name):
    """(heading above it, text) of every block of Python in a file, if there is the file."""
    path, heading = REPOSITORY / name, name
    for part in PARTS.finditer(path.read_text("utf-8") if path.exists() else ""):
        heading = part["heading"] or heading
        if part["script"]:
            yield heading, part["script"]


EXAMPLES = dict(scripts("EXAMPLES.md"))


@pytest.mark.skipif(not EXAMPLES, reason="EXAMPLES.md is not here")
def test_the_readme_begins_with_one_of_eight():
    assert [heading[:2] for heading in EXAMPLES] == [f"{n}." for n in range(1, 9)]
    assert [script for _, script in scripts("README.md")] == [EXAMPLES["2. One fit"]]


@pytest.mark.parametrize(
    "heading",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.endswith(SLOW) else [])
        for name in EXAMPLES
    ],
)
def test_it_runs_as_printed(heading, tmp_path, monkeypatch):
    path = tmp_path / "script.py"
    path.write_text(EXAMPLES[heading], "utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
