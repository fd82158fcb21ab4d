"""The scripts of README.md and EXAMPLES.md run as they are printed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SLOW = ("One fit", "Choose a sampler", "Open one result", "A spectrum", "A catalogue")
PARTS = re.compile(r"^#+ (?P<heading>.*)$|^```python\n(?P<script>.*?)^```$", re.M | re.S)


def scripts():
    """Heading and text of every block of Python; one that is printed twice runs once."""
    found = {}
    for path in (REPOSITORY / "README.md", REPOSITORY / "EXAMPLES.md"):
        heading = path.name
        for part in PARTS.finditer(path.read_text("utf-8") if path.exists() else ""):
            heading = part["heading"] or heading
            if part["script"]:
                found[part["script"]] = heading
    return [
        pytest.param(script, id=heading, marks=[pytest.mark.slow] * heading.endswith(SLOW))
        for script, heading in found.items()
    ]


@pytest.mark.parametrize("script", scripts())
def test_it_runs_as_printed(script, tmp_path, monkeypatch):
    path = tmp_path / "script.py"
    path.write_text(script, "utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
