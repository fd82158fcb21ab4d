"""Catalogue files to fluxes: every format, unit, sentinel and real table."""

import subprocess
import sys

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from jaxsed.bands.filters import load_filter
from jaxsed.catalog.config import load_config, parse_config
from jaxsed.catalog.flags import Flag
from jaxsed.catalog.plan import resolve
from jaxsed.catalog.tables import DETECTION, MISSING, UPPER_LIMIT, read_catalog, read_table
from jaxsed.catalog.units import AB_ZERO, check_declared, flux_unit, to_maggies
from jaxsed.core.errors import JaxsedError

COLUMNS = {
    "ID": [7, 8, 9],
    "z": [0.1, 0.2, 0.3],
    "g": [20.0, 21.0, 22.0],
    "eg": [0.1, 0.1, 0.2],
    "r": [19.5, 20.5, 21.5],
    "er": [0.1, 0.1, 0.2],
    "i": [19.0, 20.0, 21.0],
    "ei": [0.1, 0.1, 0.2],
}


def config(unit="ABmag", catalog="", likelihood="", bands="gri", redshift='"z"'):
    return parse_config(
        f'[catalog]\nid = "ID"\nredshift = {redshift}\nflux_unit = "{unit}"\n{catalog}\n'
        + "".join(f'[[band]]\nflux = "{b}"\nerror = "e{b}"\nfilter = "sdss_{b}0"\n' for b in bands)
        + f"[likelihood]\n{likelihood}\n"
    )


def read(tmp_path, columns, settings):
    Table(columns).write(tmp_path / "t.ecsv")
    return read_catalog(tmp_path / "t.ecsv", resolve(settings).reader)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("t.fits", "fits"),
        ("t.fits.gz", "fits"),
        ("t.ecsv", "ascii.ecsv"),
        ("t.csv", "ascii.csv"),
        ("t.vot", "votable"),
        ("t.parquet", "parquet"),
        ("t.h5", "hdf5"),
        ("t.dat", "ascii.commented_header"),
        ("t.txt", "ascii.basic"),
        ("t.cat", "ascii.csv"),
    ],
)
def test_formats(tmp_path, name, format):
    options = {"path": "table"} if format == "hdf5" else {}
    Table(COLUMNS).write(tmp_path / name, format=format, **options)
    found = read_catalog(tmp_path / name, resolve(config()).reader)
    assert found.id.tolist() == ["7", "8", "9"]
    np.testing.assert_allclose(found.redshift, COLUMNS["z"])
    np.testing.assert_allclose(found.flux[:, 1], 10 ** (-0.4 * np.array(COLUMNS["r"])))
    assert (found.kind == DETECTION).all()
    assert (found.flag == 0).all()
    assert found.id_name == "ID"
    assert found.id_values.dtype.kind == "i"


def test_text_without_header_has_numbered_columns(tmp_path):
    (tmp_path / "t.dat").write_text("1 0.1 20 0.1\n2 0.2 21 0.1\n")
    table = read_table(tmp_path / "t.dat")
    assert table.colnames == ["col1", "col2", "col3", "col4"]
    assert len(table) == 2


def test_header_among_comments(tmp_path):
    (tmp_path / "t.dat").write_text(
        "# made today\n# ID z g eg\n# with one comment more below\n1 0.1 20 0.1\n"
    )
    assert read_table(tmp_path / "t.dat").colnames == ["ID", "z", "g", "eg"]


@pytest.mark.parametrize("suffix", ["h5", "fits"])
def test_file_of_several_tables_needs_a_choice(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    if suffix == "h5":
        for name in ("one", "two"):
            Table(COLUMNS).write(path, format="hdf5", path=name, append=True)
    else:
        from astropy.io import fits

        hdus = [fits.BinTableHDU(Table(COLUMNS), name=name) for name in ("one", "two")]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    with pytest.raises(JaxsedError, match="multiple tables.*set table ="):
        read_catalog(path, resolve(config()).reader)
    assert len(read_catalog(path, resolve(config(catalog='table = "two"')).reader).id) == 3


def test_units_agree():
    magnitude, error = np.array([20.0]), np.array([0.05])
    flux, sigma = to_maggies(magnitude, error, "ABmag")
    np.testing.assert_allclose(flux, 1e-8)
    np.testing.assert_allclose(sigma, 1e-8 * 0.05 * 0.4 * np.log(10))
    for unit, value in {
        "maggies": 1e-8, "nanomaggies": 10.0, "Jy": 3.631e-5, "mJy": 3.631e-2, "uJy": 36.31,
        "nJy": 36310.0, "10 nJy": 3631.0, "mgy": 1e-8, "erg / (s cm2 Hz)": 3.631e-28,
        "AB 20": 1.0, "AB 23.9": 10**1.56, "AB 25.0": 100.0,
    }.items():  # fmt: skip
        flux, sigma = to_maggies(np.array([value]), np.array([value / 10]), unit)
        np.testing.assert_allclose(flux, 1e-8, rtol=1e-6, err_msg=unit)
        np.testing.assert_allclose(sigma, 1e-9, rtol=1e-6, err_msg=unit)


@pytest.mark.parametrize(
    "unit", ["erg / (s cm2 AA)", "1e-17 erg / (s cm2 Angstrom)", "W / (m2 um)"]
)
def test_fluxes_per_wavelength_are_seen_at_the_pivot(unit, tmp_path):
    import astropy.units as u

    band = load_filter("sdss_r0")
    own = (3.631e-5 * u.Jy).to(u.Unit(unit), equivalencies=u.spectral_density(band.pivot * u.AA))
    text = (
        f'[catalog]\nid = "ID"\nredshift = 0.1\nflux_unit = "{unit}"\n'
        '[[band]]\nflux="r"\nerror="er"\nfilter="sdss_r0"\n'
    )
    columns = {"ID": [1, 2], "r": [own.value] * 2, "er": [own.value / 10] * 2}
    found = read(tmp_path, columns, parse_config(text))
    np.testing.assert_allclose(found.flux[:, 0], 1e-8, rtol=1e-5)
    np.testing.assert_allclose(found.error[:, 0], 1e-9, rtol=1e-5)


@pytest.mark.parametrize(
    ("declared", "own", "agrees"),
    [
        ("uJy", "uJy", True), ("uJy", "nJy", False), ("10 nJy", "nJy", False),
        ("nJy", "1e-9 Jy", True), ("erg / (s cm2 AA)", "erg / (s cm2 Angstrom)", True),
        ("erg / (s cm2 AA)", "1e-17 erg / (s cm2 AA)", False), ("uJy", "erg / (s cm2 AA)", False),
        ("AB 25.0", "electron / s", True), ("uJy", "electron / s", False), ("AB 23.9", "uJy", True),
        ("AB 25.0", "uJy", False), ("nanomaggies", "nmgy", True), ("ABmag", "uJy", False),
    ],
)  # fmt: skip
def test_a_columns_own_unit_must_agree(declared, own, agrees):
    import astropy.units as u
    from astropy.table import Column

    column = Column([1.0], unit=u.Unit(own))
    if agrees:
        check_declared(column, declared, "f")
        return
    with pytest.raises(JaxsedError, match="carries the unit"):
        check_declared(column, declared, "f")


def test_a_flux_per_wavelength_is_no_flux_per_frequency_of_the_same_size():
    import astropy.units as u
    from astropy.table import Column

    per_wavelength = "erg / (s cm2 AA)"
    jansky = flux_unit(per_wavelength).factor * AB_ZERO
    with pytest.raises(JaxsedError, match="carries the unit"):
        check_declared(Column([1.0], unit=u.Unit(per_wavelength)), f"{jansky!r} Jy", "f")


@pytest.mark.parametrize("unit", ["abmags", "furlong", "AB", "AB x", "mag", "mag(AB)", "km", "", 3])
def test_a_unit_of_no_flux_density_is_refused(unit):
    with pytest.raises(JaxsedError, match="flux_unit: got .*expected one of ABmag"):
        parse_config(
            f'[catalog]\nredshift = 0.1\nflux_unit = {unit!r}\n'
            '[[band]]\nflux="r"\nerror="er"\nfilter="sdss_r0"\n'
        )


def test_band_may_have_its_own_unit(tmp_path):
    columns = COLUMNS | {"i": [90.9, 36.2, 14.4], "ei": [1.0, 1.0, 1.0]}
    text = config().bands
    settings = parse_config(
        '[catalog]\nid = "ID"\nredshift = "z"\nflux_unit = "ABmag"\n'
        + "".join(
            f'[[band]]\nflux="{b.flux}"\nerror="{b.error}"\nfilter="{b.filter}"\n' for b in text
        )
        + 'unit = "uJy"\n'
    )
    found = read(tmp_path, columns, settings)
    magnitude = -2.5 * np.log10(found.flux[:, 2])
    np.testing.assert_allclose(magnitude, [19.0, 20.0, 21.0], atol=0.01)


def test_column_with_the_declared_unit_is_read(tmp_path):
    import astropy.units as u

    table = Table(COLUMNS)
    for band in "gri":
        for name in (band, f"e{band}"):
            table[name] = (10 ** (-0.4 * np.array(COLUMNS[band])) * 3.631e9).round(3)
            table[name].unit = u.uJy
    table.write(tmp_path / "t.fits")
    found = read_catalog(tmp_path / "t.fits", resolve(config("uJy")).reader)
    np.testing.assert_allclose(-2.5 * np.log10(found.flux[:, 0]), COLUMNS["g"], atol=1e-3)


def test_sentinels_are_missing_and_told(tmp_path):
    columns = COLUMNS | {
        "g": [98.9, 21.0, 22.0],
        "eg": [-99.0, 0.1, -99.0],
        "r": [19.5, np.nan, 99.0],
    }
    found = read(tmp_path, columns, config(catalog="missing_error_below = 0.0"))
    expected = [[MISSING, DETECTION, DETECTION], [DETECTION, MISSING, DETECTION],
                [MISSING, MISSING, DETECTION]]  # fmt: skip
    assert found.kind.tolist() == expected
    assert (found.flag & Flag.BAD_PHOTOMETRY == 0).all()
    assert found.flag.tolist() == [Flag.FEW_BANDS] * 2 + [Flag.FEW_BANDS]
    assert (found.flux[found.kind == MISSING] == 0).all()
    assert (found.error[found.kind == MISSING] == 1).all()
    notes = " ".join(found.notes)
    assert "5 of 9 fluxes used" in notes
    assert "2 fluxes left out: error below 0 (missing_error_below)" in notes
    assert "1 fluxes left out: NaN or blank" in notes
    assert "1 fluxes left out: recognised sentinel (not declared)" in notes


def test_masked_and_blank_entries_are_missing(tmp_path):
    table = Table(COLUMNS)
    table["g"] = MaskedColumn(COLUMNS["g"], mask=[True, False, False])
    table["r"] = ["19.5", " ", "--"]
    table.write(tmp_path / "t.ecsv")
    found = read_catalog(tmp_path / "t.ecsv", resolve(config()).reader)
    assert found.kind[:, :2].tolist() == [[0, 1], [1, 0], [1, 0]]
    assert (found.flag & Flag.BAD_PHOTOMETRY == 0).all()


def test_upper_limits_are_negative_errors(tmp_path):
    columns = COLUMNS | {"eg": [-0.5, 0.1, -99.0]}
    settings = config(
        catalog="missing_error_below = -90.0", likelihood='upper_limits = "negative_error"'
    )
    found = read(tmp_path, columns, settings)
    assert found.kind[:, 0].tolist() == [UPPER_LIMIT, DETECTION, MISSING]
    assert found.flux[0, 0] == pytest.approx(1e-8)
    assert found.error[0, 0] == pytest.approx(1e-8 * 0.5 * 0.4 * np.log(10))
    assert "1 fluxes are upper limits." in found.notes
    assert found.n_bands.tolist() == [3, 3, 2]


def test_faint_noise_is_kept(tmp_path):
    columns = COLUMNS | {"g": [-2.0, 0.0, 3.0], "eg": [1.0, 1.0, 1.0]}
    columns |= {b: [5.0, 30.0, 200.0] for b in "ri"} | {f"e{b}": [1.0] * 3 for b in "ri"}
    found = read(tmp_path, columns, config("nanomaggies"))
    np.testing.assert_allclose(found.flux[:, 0], [-2e-9, 0.0, 3e-9])
    assert (found.flag == 0).all()


@pytest.mark.parametrize(("setting", "value"), [("0.7", 0.7), ('"free"', np.nan)])
def test_redshift_given_or_free(tmp_path, setting, value):
    found = read(tmp_path, COLUMNS, config(redshift=setting))
    np.testing.assert_array_equal(found.redshift, [value] * 3)
    assert (found.flag == 0).all()


def test_rows_without_id_column_are_numbered(tmp_path):
    Table(COLUMNS).write(tmp_path / "t.ecsv")
    settings = config()
    settings = parse_config(
        '[catalog]\nredshift = "z"\nflux_unit = "ABmag"\n'
        '[[band]]\nflux = "g"\nerror = "eg"\nfilter = "sdss_r0"\n'
    )
    found = read_catalog(tmp_path / "t.ecsv", resolve(settings).reader)
    assert (found.id_name, found.id.tolist()) == ("id", ["1", "2", "3"])


def test_choosing_rows(tmp_path):
    found = read(tmp_path, COLUMNS, config()).rows(np.array([2, 0]))
    assert found.id.tolist() == ["9", "7"]
    assert found.flux.shape == (2, 3)
    assert found.band_names == ("g", "r", "i")


def test_real_goodss_catalogue(shared_data, tmp_path):
    script = shared_data.parent / "tools" / "goodss_config.py"
    if not script.is_file():
        pytest.skip(f"no {script}")
    folder = shared_data / "filters" / "goodss"
    subprocess.run([sys.executable, script, folder, tmp_path / "c.toml"], check=True)
    path = shared_data / "galaxies" / "goodss_z1_photometry.dat"
    found = read_catalog(path, resolve(load_config(tmp_path / "c.toml")).reader)
    assert found.flux.shape == (186, 17)
    assert np.count_nonzero(found.kind == MISSING) == 376  # as many as there are errors of -99
    assert (found.kind != UPPER_LIMIT).all()
    assert (found.flag == 0).all()
    assert found.n_bands.min() >= 3
    assert found.id[0] == "21"
    assert found.flux[0, 0] == pytest.approx(10 ** (-0.4 * 26.871))
    assert found.error[0, 0] == pytest.approx(found.flux[0, 0] * 0.268 * 0.4 * np.log(10))
    assert any("376 fluxes left out: flux above 90" in note for note in found.notes)


def test_real_sdss_table_without_header(shared_data):
    settings = parse_config(
        '[catalog]\nredshift = "col11"\nflux_unit = "ABmag"\n'
        + "".join(
            f'[[band]]\nflux = "col{i + 1}"\nerror = "col{i + 6}"\nfilter = "sdss_{b}0"\n'
            f'name = "{b}"\n'
            for i, b in enumerate("ugriz")
        )
    )
    reader = resolve(settings).reader
    found = read_catalog(shared_data / "galaxies" / "sdss_ugriz_specz.dat", reader)
    assert found.flux.shape == (5000, 5)
    assert found.band_names == tuple("ugriz")
    assert found.redshift[0] == pytest.approx(0.0932155)
    assert (found.flag == 0).mean() > 0.99
