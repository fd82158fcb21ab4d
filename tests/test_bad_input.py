"""Bad catalogues, rows and configurations: each case with the message or the flag it gets.

A problem with the whole table is an error, told before any sampling; a problem with one row is a
flag on that row, and every other row is fitted as if it were not there.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from astropy.table import Table
from fake_engine import CONFIG, FakeEngine, write_inputs

from jaxsed.catalog.flags import Flag
from jaxsed.catalog.results import load_results
from jaxsed.catalog.run import fit_catalog
from jaxsed.core.errors import JaxsedError

BAD_ROW = 3  # the one the row cases spoil


class Run(NamedTuple):
    folder: Path
    catalog: Path
    config: Path
    output: Path
    table: Path


@pytest.fixture
def run(tmp_path):
    catalog, config = write_inputs(tmp_path)
    return Run(tmp_path, catalog, config, tmp_path / "run.h5", tmp_path / "run.ecsv")


def fit(run, **options):
    options = {"engine": FakeEngine(), "progress": False} | options
    return fit_catalog(run.config, run.catalog, run.output, run.table, **options)


# ------------------------------------------------------------------ rows


def cell(column: str, value: str, row: int = BAD_ROW) -> Callable[[Run], None]:
    """Write a text into one cell of the catalogue."""

    def spoil(run: Run) -> None:
        lines = run.catalog.read_text().splitlines()
        names, cells = lines[0].split(","), lines[row + 1].split(",")
        cells[names.index(column)] = value
        lines[row + 1] = ",".join(cells)
        run.catalog.write_text("\n".join(lines) + "\n")

    return spoil


def cells(**values: str) -> Callable[[Run], None]:
    def spoil(run: Run) -> None:
        for column, value in values.items():
            cell(column, value)(run)

    return spoil


def every_flux(value: str, *, keep: str = "") -> Callable[[Run], None]:
    return cells(**{f"{band}_flux": value for band in "ugriz" if band not in keep})


# case: (what is wrong, flag of that row, bands that remain, words of the notes)
ROWS = {
    "NaN band": (cell("g_flux", "nan"), 0, 4, "1 fluxes left out: NaN or blank"),
    "blank band": (cell("g_flux", ""), 0, 4, "1 fluxes left out: NaN or blank"),
    "declared error sentinel": (cell("g_err", "-99"), 0, 4, "error below -90"),
    "undeclared sentinel": (
        cells(g_flux="-99", g_err="99.0"), 0, 4, "recognised sentinel (not declared)",
    ),
    "undeclared flux sentinel": (cells(g_flux="9.9e99"), 0, 4, "recognised sentinel"),
    "infinite flux": (cell("g_flux", "inf"), Flag.BAD_PHOTOMETRY, 4, "infinite flux"),
    "NaN error": (cell("g_err", "nan"), Flag.BAD_PHOTOMETRY, 4, "NaN or infinite error"),
    "infinite error": (cell("g_err", "inf"), Flag.BAD_PHOTOMETRY, 4, "NaN or infinite error"),
    "zero error": (cell("g_err", "0"), Flag.BAD_PHOTOMETRY, 4, "zero error"),
    "negative error": (cell("g_err", "-0.5"), Flag.BAD_PHOTOMETRY, 4, "negative error"),
    "negative flux in the noise": (cells(g_flux="-0.5", g_err="1.0"), 0, 5, "50 of 50"),
    "flux 10 sigma below zero": (
        cells(g_flux="-5", g_err="0.1"), Flag.BAD_PHOTOMETRY, 4, "10 sigma below zero",
    ),
    "word in a column": (cell("g_flux", "bright"), Flag.BAD_PHOTOMETRY, 4, "not a number"),
    "two bands left": (every_flux("nan", keep="gr"), Flag.FEW_BANDS, 2, "fewer than 3 bands"),
    "all bands missing": (every_flux("nan"), Flag.NO_BANDS, 0, "no usable flux"),
    "no redshift": (cell("z", "nan"), Flag.BAD_REDSHIFT, 5, "no redshift in (0, 12]"),
    "redshift -1": (cell("z", "-1"), Flag.BAD_REDSHIFT, 5, "no redshift in (0, 12]"),
    "redshift 0": (cell("z", "0"), Flag.BAD_REDSHIFT, 5, "no redshift in (0, 12]"),
    "redshift 99": (cell("z", "99"), Flag.BAD_REDSHIFT, 5, "no redshift in (0, 12]"),
    "redshift is a word": (cell("z", "unknown"), Flag.BAD_REDSHIFT, 5, "no redshift in (0, 12]"),
    "id of another row": (cell("ID", "101"), Flag.DUPLICATE_ID, 5, "2 rows share their id"),
    "no id": (cell("ID", ""), 0, 5, "1 rows have no id"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "flag", "bands", "note"), ROWS.values(), ids=ROWS)
def test_bad_rows_are_flagged_and_the_others_fitted(run, spoil, flag, bands, note):
    untouched = fit(run, engine=FakeEngine()).table
    spoil(run)
    results = fit(run, overwrite=True)
    assert results.flags[BAD_ROW] == flag
    assert results.table["n_bands"][BAD_ROW] == bands
    assert any(note in line for line in results.notes), results.notes

    fitted = not flag & (Flag.NO_BANDS | Flag.BAD_REDSHIFT)
    assert np.isfinite(results.table["log_mass_surviving_p50"][BAD_ROW]) == fitted
    assert (results.table["flag_text"][BAD_ROW] == "") == (flag == 0)
    others = np.arange(len(results)) != BAD_ROW
    names = [name for name in untouched.colnames if name.endswith("_p50")]
    for name in names:
        np.testing.assert_array_equal(results.table[name][others], untouched[name][others])
    partner = {0} if flag == Flag.DUPLICATE_ID else set()
    assert set(np.flatnonzero(results.flags)) - {BAD_ROW} == partner


def test_all_rows_bad_is_still_a_table(run):
    for row in range(10):
        cell("z", "-1", row)(run)
    results = fit(run)
    assert (results.flags == Flag.BAD_REDSHIFT).all()
    assert len(Table.read(run.table)) == 10


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("rhat_max", 1.2, Flag.NOT_CONVERGED),
        ("rhat_max", np.nan, Flag.NOT_CONVERGED),
        ("ess_bulk_min", 399, Flag.NOT_CONVERGED),
        ("ess_tail_min", 10, Flag.NOT_CONVERGED),
        ("divergences", 1, Flag.DIVERGENCES),
        ("chi2", 80.0, Flag.POOR_FIT),
        ("flag", int(Flag.OUTSIDE_EMULATOR), Flag.OUTSIDE_EMULATOR),
        ("flag", int(Flag.UNREACHABLE_BAND), Flag.UNREACHABLE_BAND),
    ],
)
def test_what_the_engine_reports_becomes_a_flag(run, field, value, flag):
    fake = FakeEngine()

    def engine(ids, observations, seeds):
        result = fake(ids, observations, seeds)
        this = np.array(ids) == "104"
        if field == "flag":
            return result._replace(flag=np.where(this, value, result.flag))
        group = "goodness" if field == "chi2" else "diagnostics"
        record = getattr(result, group)
        changed = {field: np.where(this, value, getattr(record, field))}
        return result._replace(**{group: dataclasses.replace(record, **changed)})

    assert fit(run, engine=engine).flags.tolist() == [0] * 3 + [flag] + [0] * 6


def test_numerical_failure_is_a_flag_on_its_row(run):
    results = fit(run, engine=FakeEngine(broken=["104"]))
    assert results.flags.tolist() == [0] * 3 + [Flag.NUMERICAL_FAILURE] + [0] * 6
    assert np.isnan(results.table["a_v_p50"][3].value)


# ------------------------------------------------------------------ tables


def rewrite(text: str) -> Callable[[Run], None]:
    return lambda run: run.catalog.write_text(text)


def in_catalog(old: str, new: str) -> Callable[[Run], None]:
    return lambda run: run.catalog.write_text(run.catalog.read_text().replace(old, new))


def in_config(old: str, new: str) -> Callable[[Run], None]:
    def spoil(run: Run) -> None:
        assert old in CONFIG
        run.config.write_text(CONFIG.replace(old, new))

    return spoil


def as_format(name: str, format: str, *, keep: float = 1.0) -> Callable[[Run], Run]:
    """Rewrite the catalogue in another format and cut the file after a fraction of its bytes."""

    def spoil(run: Run) -> Run:
        path = run.folder / name
        table = Table.read(run.catalog)
        rows = Table(np.tile(table.as_array(), 200))  # larger than a FITS block
        rows.write(path, format=format, **({"path": "t"} if format == "hdf5" else {}))
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        return run._replace(catalog=path)

    return spoil


def with_unit(unit: str) -> Callable[[Run], Run]:
    def spoil(run: Run) -> Run:
        table = Table.read(run.catalog)
        table["g_flux"].unit = unit
        table.write(run.folder / "t.ecsv")
        return run._replace(catalog=run.folder / "t.ecsv")

    return spoil


def vector_column(run: Run) -> Run:
    table = Table.read(run.catalog)
    table["g_flux"] = np.ones((10, 3))
    table.write(run.folder / "t.fits")
    return run._replace(catalog=run.folder / "t.fits")


def magnitudes(run: Run) -> None:
    """Replace fluxes by magnitudes; the configuration goes on saying nanomaggies."""
    table = Table.read(run.catalog)
    for band in "ugriz":
        table[f"{band}_flux"] = (22.5 - 2.5 * np.log10(table[f"{band}_flux"])).round(3)
        table[f"{band}_err"] = 0.05
    table.write(run.catalog, overwrite=True)


def write_curve(text: str) -> Callable[[Run], None]:
    return lambda run: (run.folder / "curves" / "g.dat").write_text(text)


# case: (what is wrong, words of the message)
TABLES = {
    "no catalogue": (lambda run: run.catalog.unlink(), ["no catalogue", "catalog.csv"]),
    "catalogue is a folder": (
        lambda run: run._replace(catalog=run.folder), ["is a folder"],
    ),
    "empty file": (rewrite(""), ["has no rows"]),
    "header and no rows": (
        rewrite("ID,z,u_flux,u_err\n"), ["has no rows"],
    ),
    "binary noise": (
        lambda run: run.catalog.write_bytes(bytes(range(256)) * 20),
        ["cannot read the catalogue", "Is the file complete?"],
    ),
    "ragged text": (
        in_catalog("105,", "105,1,2,3,"), ["cannot read the catalogue"],
    ),
    "truncated HDF5": (
        as_format("t.h5", "hdf5", keep=0.5), ["not a readable HDF5 file", "truncated"],
    ),
    "truncated FITS": (as_format("t.fits", "fits", keep=0.5), ["its header declares"]),
    "truncated parquet": (as_format("t.parquet", "parquet", keep=0.5), ["not a readable parquet"]),
    "truncated VOTable": (as_format("t.vot", "votable", keep=0.5), ["cannot read", "votable"]),
    "CSV called FITS": (
        lambda run: run._replace(catalog=run.catalog.rename(run.folder / "t.fits")),
        ["cannot read", "as fits", "format ="],
    ),
    "missing flux column": (
        in_catalog("g_flux", "gflux"),
        ["[[band]] g_flux", "no column 'g_flux'", "Did you mean", "'gflux'", "Columns: ID, z"],
    ),
    "missing error column": (in_catalog("g_err", "ge"), ["no column 'g_err'"]),
    "missing redshift column": (in_catalog("ID,z,", "ID,zspec,"), ["[catalog] redshift", "'z'"]),
    "missing id column": (in_catalog("ID,z,", "name,z,"), ["[catalog] id", "no column 'ID'"]),
    "column of words": (
        lambda run: [cell("g_flux", "faint", row)(run) for row in range(10)],
        ["'g_flux' is not numeric", "'faint'"],
    ),
    "several numbers per row": (vector_column, ["'g_flux'", "one per row"]),
    "magnitudes declared as maggies": (
        lambda run: (magnitudes(run), in_config("nanomaggies", "maggies")(run)),
        ["declared maggies", "median", "check_units"],
    ),
    "magnitudes declared as nanomaggies": (
        magnitudes, ["declared nanomaggies", "look like magnitudes"],
    ),
    "fluxes in maggies declared as magnitudes": (
        lambda run: (
            [cell("u_flux", f"{1 + r}e-9", r)(run) for r in range(10)],
            in_config('"nanomaggies"', '"ABmag"')(run),
        ),
        ["u_flux", "declared ABmag"],
    ),
    "nanomaggies declared as Jy": (in_config("nanomaggies", "Jy"), ["declared Jy", "AB magnitude"]),
    "column carries another unit": (
        with_unit("mJy"), ["'g_flux' carries the unit 'mJy'", "says nanomaggies"],
    ),
    "column carries magnitudes": (with_unit("mag"), ["'g_flux' carries the unit 'mag'"]),
    "unknown filter": (in_config("curves/g.dat", "sdss_gg0"), ["'g_flux'", "sdss_gg0"]),
    "filter file not there": (in_config("curves/g.dat", "curves/x.dat"), ["no filter file"]),
    "filter file of words": (write_curve("hello there\nworld again\n"), ["'g_flux'", "g.dat"]),
    "filter file in micron": (
        write_curve("0.4 0\n0.45 1\n0.5 1\n0.55 0\n"), ["'g_flux'", "g.dat"],
    ),
    "configuration not there": (lambda run: run.config.unlink(), ["cannot read the configuration"]),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), TABLES.values(), ids=TABLES)
def test_bad_tables_are_errors_before_any_sampling(run, spoil, words):
    changed = spoil(run)
    engine = FakeEngine()
    with pytest.raises(JaxsedError) as error:
        fit(changed if isinstance(changed, Run) else run, engine=engine)
    for word in words:
        assert word in str(error.value)
    assert engine.calls == []
    assert not run.output.exists()
    assert not run.table.exists()


# ------------------------------------------------------------------ outputs


# case: (options of the run, words of the message)
OUTPUTS = {
    "no such folder": ({"output": "none/run.h5"}, ["there is no folder"]),
    "table in no folder": ({"table": "none/run.ecsv"}, ["there is no folder"]),
    "not HDF5": ({"output": "run.fits"}, ["must end with .h5"]),
    "unknown table suffix": ({"table": "run.xlsx"}, ["must end with", ".ecsv"]),
    "output is a folder": ({"output": "folder.h5"}, ["is a folder"]),
    "output exists": ({"output": "old.h5"}, ["exists", "--overwrite", "--resume"]),
    "table exists": ({"table": "old.ecsv"}, ["exists", "--overwrite"]),
    "both options": ({"resume": True, "overwrite": True}, ["choose one"]),
    "catalogue as table": (
        {"table": "catalog.csv", "overwrite": True}, ["is the catalogue itself"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "words"), OUTPUTS.values(), ids=OUTPUTS)
def test_bad_outputs_are_errors_before_any_sampling(run, options, words):
    (run.folder / "folder.h5").mkdir()
    (run.folder / "old.h5").write_text("precious")
    (run.folder / "old.ecsv").write_text("precious")
    before = run.catalog.read_text()
    options = dict(options)
    paths = {k: run.folder / options.pop(k) for k in ("output", "table") if k in options}
    engine = FakeEngine()
    with pytest.raises(JaxsedError) as error:
        fit(run._replace(**paths), engine=engine, **options)
    for word in words:
        assert word in str(error.value)
    assert engine.calls == []
    assert (run.folder / "old.h5").read_text() == "precious"
    assert (run.folder / "old.ecsv").read_text() == "precious"
    assert run.catalog.read_text() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(run):
    (run.folder / "closed").mkdir(mode=0o500)
    with pytest.raises(JaxsedError, match="no permission"):
        fit(run._replace(output=run.folder / "closed" / "run.h5"))


# ------------------------------------------------------------------ result files


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = 1


def newer(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99


FILES = {
    "truncated": (truncated, ["not a readable HDF5 file", "truncated"]),
    "text": (lambda path: path.write_text("hello"), ["not a readable HDF5 file"]),
    "foreign HDF5": (foreign, ["not a result of"]),
    "newer": (newer, ["newer jaxsed", "schema 99"]),
    "gone": (lambda path: path.unlink(), ["no result file"]),
}


@pytest.mark.parametrize(("spoil", "words"), FILES.values(), ids=FILES)
def test_bad_result_files(run, spoil, words):
    fit(run)
    spoil(run.output)
    with pytest.raises(JaxsedError) as error:
        load_results(run.output)
    for word in words:
        assert word in str(error.value)
