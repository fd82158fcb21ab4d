"""The command line: exit codes, what it prints, and that a user's mistake is no traceback."""

import json
import os
import subprocess
import sys

import pytest
from fake_engine import CONFIG, FakeEngine, write_inputs

from jaxsed import __version__, cli
from jaxsed.catalog.citations import CITATIONS, components
from jaxsed.catalog.config import parse_config
from jaxsed.workflows.checks import Check


def call(capsys, *arguments):
    """Run the command; returns exit status, output and error text."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


@pytest.fixture
def fake(monkeypatch):
    """Let `fit` use an engine that answers at once; returns what it was asked for."""
    asked = {}

    def make(plan, **options):
        asked.update(options, bands=len(plan.filters))
        return asked.get("engine") or FakeEngine()

    monkeypatch.setattr("jaxsed.catalog.run._default_engine", make)
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    return asked


def test_fit_writes_both_files_and_a_summary(tmp_path, capsys, fake):
    catalog, config = write_inputs(tmp_path)
    catalog.write_text(catalog.read_text().replace("102,0.", "102,-0."))
    code, out, err = call(
        capsys, "fit", catalog, "--config", config, "--output", tmp_path / "r.h5",
        "--table", tmp_path / "r.ecsv", "--seed", 3, "--train",
    )  # fmt: skip
    assert code == 0
    assert "10 rows: 9 fitted, 9 without a flag." in out
    assert "not fitted" in out
    assert "galaxies/s" in out
    assert "10 rows, 5 bands" in err
    assert (tmp_path / "r.h5").exists()
    assert (tmp_path / "r.ecsv").exists()
    assert (fake["train"], fake["bands"]) == (True, 5)


def test_quiet_says_nothing(tmp_path, capsys, fake):
    catalog, config = write_inputs(tmp_path)
    code, out, err = call(capsys, "fit", catalog, "-c", config, "-o", tmp_path / "r.h5", "-q")
    assert (code, out, err) == (0, "", "")


def test_mistake_is_one_paragraph_and_status_1(tmp_path, capsys, fake):
    catalog, config = write_inputs(tmp_path)
    config.write_text(CONFIG.replace("g_flux", "gflux"))
    code, out, err = call(capsys, "fit", catalog, "-c", config, "-o", tmp_path / "r.h5")
    assert code == 1
    assert err.startswith("jaxsed: [[band]] gflux: the catalogue has no column 'gflux'.")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_stopping_tells_how_to_continue(tmp_path, capsys, fake):
    catalog, config = write_inputs(tmp_path)
    fake["engine"] = FakeEngine(stop_after=1)
    arguments = ("fit", catalog, "-c", config, "-o", tmp_path / "r.h5")
    code, _, err = call(capsys, *arguments)
    assert code == 130
    assert "--resume continues" in err
    fake["engine"] = FakeEngine()
    code, out, _ = call(capsys, *arguments, "--resume")
    assert code == 0
    assert "10 rows: 10 fitted" in out
    assert len(fake["engine"].calls) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit"], "Missing argument"),
        (["fit", "a.csv", "-c", "c.toml"], "Missing option"),
        (["frobnicate"], "No such command"),
        (["fit", "a.csv", "-c", "c", "-o", "r.h5", "--seed", "x"], "Invalid value for '--seed'"),
    ],
)
def test_wrong_usage_is_status_2(capsys, arguments, words):
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert words in err


def test_doctor(capsys, monkeypatch):
    """What the known answers are is a test of the checks."""
    known = [Check("hmc on a Gaussian", "means within 1.0 standard errors", True)]
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    monkeypatch.setattr("jaxsed.workflows.checks.self_check", lambda: known)
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    for word in (__version__, "jax", "numpyro", "sedpy", "distrax", "devices", "float32 product"):
        assert word in out
    assert "hmc on a Gaussian" in out
    assert "PROBLEM" not in out


def test_doctor_reports_what_does_not_import(capsys, monkeypatch):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    monkeypatch.setitem(sys.modules, "distrax", None)  # makes its import fail
    code, out, _ = call(capsys, "doctor", "--quick")
    assert code == 0
    assert "not usable" in out
    assert "Gaussian" not in out
    monkeypatch.setitem(sys.modules, "numpyro", None)
    code, out, _ = call(capsys, "doctor")
    assert code == 1
    assert "PROBLEM" in out


def test_doctor_reports_a_wrong_answer(capsys, monkeypatch):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    monkeypatch.setattr(
        "jaxsed.workflows.checks.self_check", lambda: [Check("physics", "off by 1 mag", False)]
    )
    code, out, _ = call(capsys, "doctor")
    assert code == 1
    assert "off by 1 mag" in out


def test_cite_all(capsys):
    code, out, _ = call(capsys, "cite")
    assert code == 0
    assert "ApJ, 945, 16" in out
    for name in CITATIONS:
        assert f"\n{name}: " in out


def test_cite_a_run(tmp_path, capsys, fake):
    catalog, config = write_inputs(tmp_path)
    config.write_text(CONFIG + '[model]\nigm = "madau1995"\n')
    call(capsys, "fit", catalog, "-c", config, "-o", tmp_path / "r.h5", "-q")
    code, out, _ = call(capsys, "cite", tmp_path / "r.h5")
    assert code == 0
    assert "Madau" in out
    assert "Inoue" not in out
    assert call(capsys, "cite", tmp_path / "none.h5")[0] == 1


def test_every_choice_has_its_citation():
    from jaxsed.catalog.config import sections as settings

    choices = (settings.FAMILIES, settings.IGM, settings.COSMOLOGIES, settings.METHODS, ("auto",))
    for name in [name for group in choices for name in group]:
        assert name in CITATIONS
    text = '[catalog]\nredshift=1\nflux_unit="Jy"\n[[band]]\nflux="a"\nerror="b"\nfilter="c"\n'
    assert "emulator" not in components(parse_config(text), predictor="physics")


def test_info_lists_the_shipped_files(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = call(capsys, "info")
    assert code == 0
    assert "ssp_pegase2.h5" in out
    line = next(line for line in out.splitlines() if "provabgs_goodss" in line)
    for words in ("photometry", "17 bands", "0.37 to 7.93 µm", "0 to 4", "mag"):
        assert words in line


def test_the_schema_is_printed(capsys):
    code, out, _ = call(capsys, "config", "schema")
    assert code == 0
    assert set(json.loads(out)["required"]) == {"catalog", "band"}


def test_version(capsys):
    assert call(capsys, "--version")[:2] == (0, f"jaxsed {__version__}\n")


def test_prepare_process_leaves_what_the_user_set(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "1")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "")
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")  # undone at the end
    cli.prepare_process()
    assert os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] == "1"
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    cli.prepare_process()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "2"


def test_help_does_not_wait_for_jax():
    program = (
        "import sys, jaxsed.cli as c\n"
        "try: c.main(['fit', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('jax', 'numpy', 'astropy', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "--resume" in done.stdout
