"""The benchmarks keep up with the package: each imports, and its command tells its options."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for path in sorted((REPOSITORY / "benchmarks").rglob("*.py"))
]


@pytest.mark.skipif(not MODULES, reason="benchmarks/ is not part of a source distribution")
@pytest.mark.parametrize("name", MODULES)
def test_it_imports_and_tells_its_options(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(REPOSITORY)
    module = importlib.import_module(name)
    if not hasattr(module, "main"):
        return  # of several benchmarks
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out
