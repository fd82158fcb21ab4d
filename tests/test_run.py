"""The loop over a catalogue: chunks, seeds, interruption and resumption, identity of a run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_engine import CONFIG, FakeEngine, write_inputs

from jaxsed.catalog.config import load_config
from jaxsed.catalog.results import load_results
from jaxsed.catalog.run import fit_catalog, rate_and_rest, seeds_of
from jaxsed.core.errors import JaxsedError


@pytest.fixture
def inputs(tmp_path):
    return write_inputs(tmp_path)


def test_rows_come_in_chunks_and_in_order(inputs, tmp_path):
    catalog, config = inputs
    engine = FakeEngine()
    results = fit_catalog(config, catalog, tmp_path / "r.h5", engine=engine, progress=False)
    assert [len(ids) for ids in engine.calls] == [4, 4, 2]
    assert results.ids.tolist() == [str(i) for i in range(101, 111)]
    assert [p.name for p in tmp_path.iterdir() if "r.h5" in p.name] == ["r.h5"]


def test_random_numbers_go_by_the_id_and_not_by_batch_or_order(inputs, tmp_path):
    catalog, config = inputs
    first = fit_catalog(config, catalog, tmp_path / "a.h5", engine=FakeEngine(), progress=False)
    lines = catalog.read_text().splitlines()
    catalog.write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    config.write_text(CONFIG.replace("batch = 4", "batch = 3"))
    second = fit_catalog(config, catalog, tmp_path / "b.h5", engine=FakeEngine(), progress=False)
    for name in ("a_v", "beta"):
        np.testing.assert_array_equal(first.summary(name), second.summary(name)[::-1])
    np.testing.assert_array_equal(first.draws(105)["a_v"], second.draws(105)["a_v"])


def test_seeds_differ_by_seed_id_and_occurrence():
    words = seeds_of(1, ["a", "a", "b"], [0, 1, 0])
    assert words.shape == (3, 2)
    assert words.dtype == np.uint32
    assert len({tuple(w) for w in [*words.tolist(), *seeds_of(2, ["a"], [0]).tolist()]}) == 4
    # written into results for years to come: the rule must not change
    assert seeds_of(0, ["galaxy"], [0]).tolist() == [[820696511, 3613688483]]


def test_rows_of_one_id_are_fitted_apart(inputs, tmp_path):
    catalog, config = inputs
    catalog.write_text(catalog.read_text().replace("102,", "101,", 1))
    results = fit_catalog(config, catalog, tmp_path / "r.h5", engine=FakeEngine(), progress=False)
    assert not np.array_equal(results.draws(row=0)["a_v"], results.draws(row=1)["a_v"])
    with pytest.raises(JaxsedError, match="rows 0, 1"):
        results.draws(101)


def interrupted(inputs, output, chunks=2, **options):
    with pytest.raises(KeyboardInterrupt):
        engine = FakeEngine(stop_after=chunks)
        fit_catalog(inputs[1], inputs[0], output, engine=engine, progress=False, **options)


def test_killed_run_is_continued_from_its_chunks(inputs, tmp_path):
    catalog, config = inputs
    output, whole = tmp_path / "r.h5", tmp_path / "whole.h5"
    interrupted(inputs, output)
    assert not output.exists()
    with pytest.raises(JaxsedError, match="not finished.*--resume"):
        load_results(output)
    with pytest.raises(JaxsedError, match="unfinished run.*--resume.*--overwrite"):
        fit_catalog(config, catalog, output, engine=FakeEngine(), progress=False)

    engine = FakeEngine()
    resumed = fit_catalog(config, catalog, output, engine=engine, resume=True, progress=False)
    assert [len(ids) for ids in engine.calls] == [2]
    expected = fit_catalog(config, catalog, whole, engine=FakeEngine(), progress=False)
    for name in expected.quantities:
        np.testing.assert_array_equal(resumed.summary(name), expected.summary(name))


def test_killed_without_warning_while_writing(inputs, tmp_path):
    catalog, config = inputs
    output = tmp_path / "r.h5"
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_engine import FakeEngine
from jaxsed.io import files
from jaxsed.catalog.results import writer
from jaxsed.catalog.run import fit_catalog

writer.PART_SECONDS = 0.0

class Dies(FakeEngine):
    def __call__(self, *arguments):
        if len(self.calls) == 1:
            files._to_disk = lambda path: (path.write_bytes(b"half"), os._exit(9))
        return super().__call__(*arguments)

fit_catalog({str(config)!r}, {str(catalog)!r}, {str(output)!r}, engine=Dies(), progress=False)
"""
    repository = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True)
    assert done.returncode == 9, done.stderr
    engine = FakeEngine()
    results = fit_catalog(config, catalog, output, engine=engine, resume=True, progress=False)
    assert [len(ids) for ids in engine.calls] == [4, 2]
    assert (results.flags == 0).all()


def test_resuming_a_finished_run_fits_nothing_and_writes_the_table(inputs, tmp_path):
    catalog, config = inputs
    output, table = tmp_path / "r.h5", tmp_path / "r.ecsv"
    fit_catalog(config, catalog, output, engine=FakeEngine(), progress=False)
    engine = FakeEngine()
    fit_catalog(config, catalog, output, table, engine=engine, resume=True, progress=False)
    assert engine.calls == []
    assert table.exists()


def test_resume_without_anything_starts(inputs, tmp_path):
    catalog, config = inputs
    engine = FakeEngine()
    fit_catalog(config, catalog, tmp_path / "r.h5", engine=engine, resume=True, progress=False)
    assert len(engine.calls) == 3


CHANGES = {
    "configuration": (lambda c, t: t.write_text(CONFIG + "[likelihood]\nerror_floor = 0.1\n"), {}),
    "catalogue": (lambda c, t: c.write_text(c.read_text().replace("0.", "0.0", 1)), {}),
    "filters": (
        lambda c, t: (t.parent / "curves/g.dat").write_text("4000 0\n5000 1\n6000 0\n"),
        {},
    ),
    "seed": (lambda c, t: None, {"seed": 5}),
    "emulator_checksum": (lambda c, t: None, {"engine": FakeEngine(checksum="other")}),
}


@pytest.mark.parametrize(
    ("what", "finished"),
    # a finished run is not compared by engine: it needs none
    [(k, done) for k in CHANGES for done in (False, True) if not (done and "emulator" in k)],
)
def test_another_run_is_not_resumed(inputs, tmp_path, what, finished):
    catalog, config = inputs
    change, options = CHANGES[what]
    output = tmp_path / "r.h5"
    if finished:
        fit_catalog(config, catalog, output, engine=FakeEngine(), progress=False)
    else:
        interrupted(inputs, output)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    change(catalog, config)
    options = {"engine": FakeEngine(), "progress": False} | options
    with pytest.raises(JaxsedError, match=f"cannot resume .*the {what} "):
        fit_catalog(config, catalog, output, resume=True, **options)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_overwrite_starts_again(inputs, tmp_path):
    catalog, config = inputs
    output = tmp_path / "r.h5"
    interrupted(inputs, output)
    engine = FakeEngine()
    fit_catalog(config, catalog, output, engine=engine, overwrite=True, progress=False)
    assert len(engine.calls) == 3
    engine = FakeEngine()
    fit_catalog(config, catalog, output, engine=engine, overwrite=True, progress=False, seed=3)
    assert len(engine.calls) == 3
    assert load_results(output).provenance["seed"] == 3


def test_runs_of_similar_names_leave_each_other_alone(inputs, tmp_path):
    catalog, config = inputs
    interrupted(inputs, tmp_path / "r1_2.h5")
    fit_catalog(config, catalog, tmp_path / "r1.h5", engine=FakeEngine(), progress=False)
    engine = FakeEngine()
    fit_catalog(config, catalog, tmp_path / "r1_2.h5", engine=engine, resume=True, progress=False)
    assert [len(ids) for ids in engine.calls] == [2]
    assert (tmp_path / "r1.h5").exists()


def test_folder_in_the_way_is_not_removed(inputs, tmp_path):
    catalog, config = inputs
    (tmp_path / "r.h5.parts").mkdir()
    (tmp_path / "r.h5.parts" / "thesis.txt").write_text("precious")
    with pytest.raises(JaxsedError, match="not made by jaxsed"):
        fit_catalog(
            config, catalog, tmp_path / "r.h5", engine=FakeEngine(), overwrite=True, progress=False
        )
    assert (tmp_path / "r.h5.parts" / "thesis.txt").exists()


def test_failed_start_leaves_nothing(inputs, tmp_path):
    catalog, config = inputs
    interrupted(inputs, tmp_path / "r.h5", chunks=0)
    assert not list(tmp_path.glob("r.h5*"))


def test_defect_in_the_engine_says_which_rows_and_what_is_kept(inputs, tmp_path):
    catalog, config = inputs

    def engine(ids, observations, seeds):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom") as error:
        fit_catalog(config, catalog, tmp_path / "r.h5", engine=engine, progress=False)
    assert "rows 0 to 3" in error.value.__notes__[0]


def test_progress_tells_notes_rate_and_rest(inputs, tmp_path, capsys):
    catalog, config = inputs
    fit_catalog(config, catalog, tmp_path / "r.h5", engine=FakeEngine())
    text = capsys.readouterr().err
    assert text.count("10 rows, 5 bands, 50 of 50 fluxes used.") == 1
    assert "10/10 galaxies" in text
    assert "galaxies/s" in text


def test_rate_leaves_out_the_compilation():
    assert rate_and_rest([], 10) == (None, None)
    assert rate_and_rest([(10, 20.0)], 10) == (0.5, 20.0)
    assert rate_and_rest([(10, 20.0), (10, 5.0)], 10) == (2.0, 5.0)
    assert rate_and_rest([(10, 0.0), (10, 5.0)], 10) == (2.0, 5.0)  # kept from before


def test_config_object_is_accepted(inputs, tmp_path):
    catalog, config = inputs
    checked = load_config(config)
    assert len(
        fit_catalog(checked, catalog, tmp_path / "r.h5", engine=FakeEngine(), progress=False)
    )


def test_real_goodss_run_gives_the_table_that_is_scored(shared_data, tmp_path):
    tools, folder = shared_data.parent / "tools", shared_data / "galaxies"
    if not tools.is_dir():
        pytest.skip(f"no {tools}")
    config, table = tmp_path / "c.toml", tmp_path / "r.ecsv"
    curves = shared_data / "filters" / "goodss"
    subprocess.run([sys.executable, tools / "goodss_config.py", curves, config], check=True)
    results = fit_catalog(
        config, folder / "goodss_z1_photometry.dat", tmp_path / "r.h5", table,
        engine=FakeEngine(), progress=False,
    )  # fmt: skip
    assert (len(results), len(results.band_names)) == (186, 17)
    assert (results.flags == 0).all()
    assert results.band_wave[2] == pytest.approx(4350, abs=100)  # ACS F435W
    scored = subprocess.run(
        [sys.executable, tools / "compare_goodss.py", table, folder / "goodss_z1_codes.ecsv"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert scored.stdout.startswith("pass 1.000; prospector n 18"), scored.stderr
