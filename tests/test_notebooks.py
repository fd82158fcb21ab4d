"""The notebooks are executed as committed, and still run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
        assert "/home/" not in json.dumps(outputs), path


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
