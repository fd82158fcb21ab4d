"""The notebooks are executed as committed, and still run."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxsed.catalog.flags import TEXT, Flag

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_cells(path: Path) -> list[dict]:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.skipif(not NOTEBOOKS, reason="notebooks/ is not part of a source distribution")
def test_every_cell_was_executed_in_order_without_error():
    for path in NOTEBOOKS:
        cells = code_cells(path)
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), path
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert outputs, path
        assert not [o for o in outputs if o["output_type"] == "error"], path
        # neither warnings of the machine that it ran on, nor its paths
        assert not [o for o in outputs if o.get("name") == "stderr"], path
        assert not re.search(r"/home/|site-packages|/root/", json.dumps(outputs)), path


def text_of(path: Path) -> str:
    """All that the cells of a notebook print or show as a table, tags left out."""
    shown = []
    for cell in code_cells(path):
        for output in cell["outputs"]:
            data = output.get("data", {})
            shown += [output.get("text", []), data.get("text/html") or data.get("text/plain", [])]
    return re.sub(r"<[^>]*>", " ", "\n".join("".join(part) for part in shown))


@pytest.mark.skipif(not NOTEBOOKS, reason="notebooks/ is not part of a source distribution")
def test_posteriors_that_are_shown_have_converged():
    """A reader takes what a notebook shows for what the package does."""
    counted = 0
    for path in NOTEBOOKS:
        text = text_of(path)
        assert TEXT[Flag.NOT_CONVERGED] not in html.unescape(text), path
        assert not re.search(r"(converged|passes): False", text), path
        told = re.findall(r"(\d+) (?:galaxies )?of (\d+)[;,]? (\d+)? ?converged", text)
        for few, many, third in told:
            assert (third or few) == many, path
        counted += len(told) + len(re.findall(r"(converged|passes): True", text))
    assert counted >= 4


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    lines = [line for cell in code_cells(path) for line in "".join(cell["source"]).splitlines()]
    script = tmp_path / f"{path.stem}.py"
    script.write_text("\n".join(line for line in lines if not line.startswith("%")), "utf-8")
    environment = os.environ | {"MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
