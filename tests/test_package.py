"""What importing and installing the package does, and that its parts tell the same version."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jaxsed

REPOSITORY = Path(__file__).resolve().parents[1]


def run_python(program: str) -> dict:
    """Run a program in a fresh interpreter; it prints one JSON object as its last line."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_is_light():
    loaded = run_python("import jaxsed, json, sys; print(json.dumps(dict.fromkeys(sys.modules)))")
    heavy = {"jax", "numpy", "matplotlib", "arviz", "distrax", "numpyro", "astropy", "h5py"}
    assert heavy & set(loaded) == set()


def test_importing_every_module_changes_no_setting_and_loads_no_lazy_library():
    report = run_python(
        """
import importlib, json, pkgutil, sys
import jax, numpy
before = dict(jax.config.values)
errors = numpy.geterr()
import jaxsed
names = [m.name for m in pkgutil.walk_packages(jaxsed.__path__, "jaxsed.")
         if not m.name.startswith("jaxsed.weights.") and m.name != "jaxsed.infer.amortised.flow"]
for name in names:
    importlib.import_module(name)
changed = [key for key, value in jax.config.values.items() if before.get(key, value) != value]
lazy = [m for m in ("matplotlib", "corner", "arviz", "distrax", "fsps") if m in sys.modules]
print(json.dumps({"names": names, "changed": changed, "lazy": lazy,
                  "errors": numpy.geterr() == errors}))
"""
    )
    assert len(report["names"]) > 10
    assert report["changed"] == []
    assert report["lazy"] == []
    assert report["errors"], "importing jaxsed changed numpy's error settings"


@pytest.mark.parametrize("name", jaxsed.__all__)
def test_public_names_exist(name):
    assert getattr(jaxsed, name) is not None
    assert name in dir(jaxsed)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="fit_everything"):
        _ = jaxsed.fit_everything


def test_version_is_told_once():
    changelog = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", changelog, flags=re.MULTILINE)
    citation = re.search(
        r"^version: (\S+)", (REPOSITORY / "CITATION.cff").read_text("utf-8"), flags=re.MULTILINE
    )
    assert newest and newest.group(1) == jaxsed.__version__
    assert citation and citation.group(1) == jaxsed.__version__


def test_every_extra_is_used():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    source = "\n".join(path.read_text("utf-8") for path in (REPOSITORY / "jaxsed").rglob("*.py"))
    for extra in extras.keys() - {"test", "peers", "dev"}:  # of tests, benchmarks and developers
        for requirement in extras[extra]:
            module = re.split(r"[\[<>=~!; ]", requirement)[0].replace("-", "_")
            assert re.search(rf"^\s*(?:import|from) {module}\b", source, re.MULTILINE), extra


def test_every_dependency_says_why_it_has_its_range():
    text = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    pins = sum(project["optional-dependencies"].values(), start=project["dependencies"])
    lines = text.splitlines()
    for pin in pins:
        (at,) = (n for n, line in enumerate(lines) if f'"{pin}"' in line)
        assert "#" in lines[at] or lines[at - 1].strip().startswith("#"), pin


def test_every_weight_file_has_a_model_card():
    weights = sorted((REPOSITORY / "jaxsed" / "weights").glob("*.h5"))
    assert weights, "no shipped weights"
    for path in weights:
        card = path.with_suffix(".md")
        assert card.is_file(), f"{path.name} has no model card {card.name}"
        assert path.stat().st_size <= 6 * 2**20
