"""Readers of survey files: real files where they are at hand, and broken ones made here."""

import numpy as np
import pytest
from astropy.io import fits
from scipy import sparse

from jaxsed.sps.spectra.observed import arm
from jaxsed.sps.spectra.readers import (
    read_desi_coadd,
    read_redrock,
    read_sdss_spectrum,
    rows_of_diagonals,
)

N = 50
TARGETS = (11, 22)
UNIT = "10**-17 erg/(s cm2 Angstrom)"


def _coadd(path, *, drop=(), unit=UNIT, photsys="N"):
    """A small DESI coadd of two targets and two arms."""
    rng = np.random.default_rng(0)
    columns = [
        fits.Column("TARGETID", "K", array=np.array(TARGETS)),
        fits.Column("PHOTSYS", "1A", array=np.array([photsys, photsys])),
        fits.Column("EBV", "E", array=np.array([0.05, 0.1])),
        fits.Column("FLUX_G", "E", array=np.array([2.0, 3.0])),
        fits.Column("FLUX_IVAR_G", "E", array=np.array([400.0, 0.0])),
        fits.Column("FLUX_W1", "E", array=np.array([5.0, np.nan])),
        fits.Column("FLUX_IVAR_W1", "E", array=np.array([4.0, 4.0])),
    ]
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="FIBERMAP")]
    for name, start in (("B", 3600.0), ("R", 3630.0)):
        flux = fits.ImageHDU(rng.normal(size=(2, N)), name=f"{name}_FLUX")
        flux.header["BUNIT"] = unit
        mask = np.zeros((2, N), np.int32)
        mask[0, 7] = 4
        diagonals = np.array([0.1, 0.2, 0.4, 0.2, 0.1])[None, :, None] * np.ones((2, 5, N))
        hdus += [
            flux,
            fits.ImageHDU(start + 0.8 * np.arange(N), name=f"{name}_WAVELENGTH"),
            fits.ImageHDU(np.ones((2, N)), name=f"{name}_IVAR"),
            fits.ImageHDU(mask, name=f"{name}_MASK"),
            fits.ImageHDU(diagonals * rng.uniform(0.9, 1.1, (2, 5, N)), name=f"{name}_RESOLUTION"),
        ]
    fits.HDUList([hdu for hdu in hdus if hdu.name not in drop]).writeto(path)
    return path


def _sdss(path, **changes):
    wave = 10.0 ** (3.6 + 1e-4 * np.arange(N))
    columns = {
        "loglam": np.log10(wave), "flux": np.ones(N), "ivar": np.ones(N),
        "and_mask": np.zeros(N, np.int32), "wdisp": np.full(N, 1.1),
    } | changes  # fmt: skip
    formats = {"and_mask": "J"}
    table = [
        fits.Column(name, formats.get(name, "D"), array=values)
        for name, values in columns.items()
        if values is not None
    ]
    header = fits.Header({"BUNIT": "1E-17 erg/cm^2/s/Ang", "NAME": "1-2-3"})
    specobj = fits.BinTableHDU.from_columns([fits.Column("Z", "E", array=np.array([0.02]))])
    coadd = fits.BinTableHDU.from_columns(table, name="COADD")
    fits.HDUList([fits.PrimaryHDU(header=header), coadd, specobj]).writeto(path)
    return path


def test_desi_coadd(tmp_path):
    first, second = read_desi_coadd(_coadd(tmp_path / "coadd.fits"))
    assert [a.name for a in first.arms] == ["b", "r"] and first.name == "DESI 11"
    assert first.arms[0].used.sum() == N - 1 and not first.arms[0].used[7]
    assert second.arms[0].used.sum() == N
    assert first.photometry == {
        "bass_g": pytest.approx((2e-9, 5e-11)), "wise_w1": pytest.approx((5e-9, 5e-10)),
    }  # fmt: skip
    assert second.photometry == {} and second.ebv == pytest.approx(0.1)
    (south,) = read_desi_coadd(_coadd(tmp_path / "south.fits", photsys="S"), target=11)
    assert "decam_g" in south.photometry


def test_resolution_rows_are_those_of_scipys_matrix(tmp_path):
    path = _coadd(tmp_path / "coadd.fits")
    (observed,) = read_desi_coadd(path, target=22)
    with fits.open(path) as hdus:
        diagonals = np.asarray(hdus["B_RESOLUTION"].data[1], float)
    matrix = sparse.dia_matrix((diagonals, np.arange(2, -3, -1)), (N, N)).toarray()
    one = observed.arms[0]
    for offset, row in zip(one.offsets, one.resolution, strict=True):
        for i in range(N):
            expected = matrix[i, i + offset] if 0 <= i + offset < N else 0.0
            assert row[i] == pytest.approx(expected, rel=1e-12)
    again = rows_of_diagonals(diagonals, np.arange(2, -3, -1))
    np.testing.assert_array_equal(again, one.resolution)
    # sigma^2 of (0.1, 0.2, 0.4, 0.2, 0.1) is 1.2 pixels
    np.testing.assert_allclose(one.fwhm(), 2.3548 * np.sqrt(1.2) * 0.8, rtol=0.15)


@pytest.mark.parametrize(
    ("options", "target", "message"),
    [
        ({"drop": ("FIBERMAP",)}, None, "not a DESI coadd"),
        ({"drop": ("B_RESOLUTION", "B_MASK")}, None, "arm B lacks MASK, RESOLUTION"),
        ({"unit": "nanomaggies"}, None, "expected fluxes in 1e-17"),
        ({}, 33, r"no target 33 among 2 \(such as 11, 22\)"),
    ],
)
def test_bad_coadds(tmp_path, options, target, message):
    with pytest.raises(ValueError, match=message):
        read_desi_coadd(_coadd(tmp_path / "coadd.fits", **options), target)


def test_sdss_spectrum(tmp_path):
    bits = np.zeros(N, np.int32)
    bits[3], bits[4] = 1 << 24, 1 << 16  # no data; near a bad pixel, which is still good
    ivar = np.ones(N)
    ivar[9] = 0.0
    width = np.full(N, 1.1)
    width[9] = 0.0
    observed = read_sdss_spectrum(_sdss(tmp_path / "a.fits", and_mask=bits, ivar=ivar, wdisp=width))
    one = observed.arms[0]
    assert list(np.flatnonzero(~one.used)) == [3, 9]
    assert observed.redshift == pytest.approx(0.02) and observed.name == "SDSS 1-2-3"
    speed = (one.sigma / one.wave * 299792.458)[one.used]
    np.testing.assert_allclose(speed, 1.1 * 69.03, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wdisp": None}, "lacks wdisp"),
        ({"ivar": np.zeros(N)}, "every pixel is masked"),
        ({"loglam": np.linspace(4, 3, N)}, "that increase"),
    ],
)
def test_bad_sdss_spectra(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_sdss_spectrum(_sdss(tmp_path / "a.fits", **changes))


def test_files_that_are_none(tmp_path):
    text = tmp_path / "text.fits"
    text.write_text("not a FITS file")
    for read in (read_desi_coadd, read_redrock, read_sdss_spectrum):
        with pytest.raises(FileNotFoundError, match="no file"):
            read(tmp_path / "absent.fits")
        with pytest.raises(ValueError, match="not a readable FITS file"):
            read(text)
    with pytest.raises(ValueError, match="not a redrock file"):
        read_redrock(_sdss(tmp_path / "sdss.fits"))
    with pytest.raises(ValueError, match="not an SDSS spectrum"):
        read_sdss_spectrum(_coadd(tmp_path / "coadd.fits"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wave": np.arange(N)[::-1] + 4000.0}, "that increase"),
        ({"ivar": -np.ones(N)}, "negative"),
        ({"flux": np.full(N, np.nan)}, "every pixel is masked"),
        ({"mask": np.zeros(3)}, "expected a mask"),
        ({"sigma": 0.0}, "above zero"),
        ({"resolution": np.ones((3, N)), "offsets": (1, 0)}, "an offset per diagonal"),
        ({"resolution": np.ones((1, N)), "offsets": (0,), "sigma": 1.0}, "not both"),
        ({"flux": np.ones(3)}, "of one length"),
    ],
)
def test_bad_arms(options, message):
    inputs = {"wave": 4000.0 + np.arange(N), "flux": np.ones(N), "ivar": np.ones(N)} | options
    with pytest.raises(ValueError, match=message):
        arm(inputs.pop("wave"), inputs.pop("flux"), inputs.pop("ivar"), **inputs)


def test_real_files(shared_data):
    folder = shared_data / "spectra"
    (desi,) = read_desi_coadd(folder / "coadd-4-80613-thru20210324.fits")
    assert [a.wave.size for a in desi.arms] == [2751, 2326, 2881]
    assert set(desi.photometry) == {"bass_g", "bass_r", "mzls_z", "wise_w1", "wise_w2"}
    # The line-spread function of DESI: 1.5 to 1.9 Angstrom.
    widths = [np.median(a.fwhm()) for a in desi.arms]
    assert 1.4 < min(widths) and max(widths) < 2.0
    redshifts = read_redrock(folder / "redrock-4-80613-thru20210324.fits")
    assert redshifts[39633345008634465] == pytest.approx(0.3687, abs=1e-4)
    sdss = read_sdss_spectrum(folder / "NGC4636_SDSS_DR12.fits")
    assert sdss.redshift == pytest.approx(0.003025, abs=1e-6)
    assert sdss.arms[0].wave[[0, -1]] == pytest.approx([3808.9, 9215.1], abs=0.1)
