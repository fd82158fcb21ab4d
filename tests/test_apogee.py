"""APOGEE's grids, files, continuum and windows."""

import numpy as np
import pytest
from astropy.io import fits

from jaxsed.core.constants import C_LIGHT_KM_S
from jaxsed.stars import apogee, robust_scatter
from jaxsed.stars.continuum import normalise
from jaxsed.stars.data import StarFlag


def spectrum_on_grid():
    """A smooth continuum with lines, over the full grid."""
    wave = apogee.full_grid()
    lines = sum(
        0.3 * np.exp(-(((wave - w) / 0.6) ** 2)) for w in (15400.0, 15900.0, 16200.0, 16800)
    )
    slope = 1 + 0.3 * (wave - 16000) / 1000
    return wave, 1 - lines, slope


def test_grids_have_the_published_sizes():
    assert apogee.grid(17).size == apogee.grid(14).size == 7514
    assert apogee.grid(12).size == 7214
    assert apogee.grid(12)[0] == pytest.approx(15168.128527, abs=1e-5)
    with pytest.raises(ValueError, match="unknown release DR18"):
        apogee.grid(18)


@pytest.mark.parametrize("release", [12, 17])
def test_chips_follow_each_other_on_the_grid(release):
    wave = apogee.grid(release)
    parts = apogee.ranges(release)
    assert [p.start for p in parts] == [0, *(p.stop for p in parts[:2])]
    assert parts[-1].stop == wave.size
    # Between chips there is a gap of many pixels, within one there is none.
    assert all(np.diff(wave)[p.stop - 1] > 20 for p in parts[:2])
    assert all(np.diff(wave[p]).max() < 0.25 for p in parts)


def test_windows_and_continuum_pixels():
    windows = apogee.windows()
    counts = {name: int(w.sum()) for name, w in windows.items()}
    assert counts["C"] == 3806 and counts["Mg"] == 106 and counts["S"] == 8
    assert len(counts) == 20 and all(w.shape == (7514,) for w in windows.values())
    assert apogee.continuum_pixels(14).sum() == 529 and apogee.continuum_pixels(17).sum() == 532
    old = apogee.windows(12)["Mg"]
    # The same wavelengths on the older grid, which is narrower.
    new = set(np.round(apogee.grid(17)[windows["Mg"]], 4))
    assert old.shape == (7214,) and set(np.round(apogee.grid(12)[old], 4)) <= new


def test_normalising_divides_by_the_polynomial():
    generator = np.random.default_rng(0)
    x = np.linspace(-1, 1, 300)
    level = np.stack([5 + 2 * x - x**2, 3 - x])
    error = np.full_like(level, 0.02)
    flux = level + error * generator.normal(size=level.shape)
    flux[0, 50:60] *= 0.5  # a line
    continuum = np.ones(300, bool)
    continuum[50:60] = False
    out, noise = normalise(flux, error, continuum, [slice(0, 300)])
    np.testing.assert_allclose(out, flux / level, rtol=5e-3)
    np.testing.assert_allclose(noise, error / level, rtol=5e-3)


def test_the_continuum_is_weighted_by_inverse_variance():
    """The weighted least-squares solution, written out."""
    generator = np.random.default_rng(1)
    x = np.linspace(-1, 1, 50)
    error = generator.uniform(0.01, 1.0, (1, 50))
    flux = 2 + error * generator.normal(size=(1, 50))
    out, _ = normalise(flux, error, np.ones(50, bool), [slice(0, 50)])
    a = np.stack([np.ones(50), x, 2 * x**2 - 1], axis=1)
    w = 1 / error[0] ** 2
    c = np.linalg.solve((a.T * w) @ a, (a.T * w) @ flux[0])
    np.testing.assert_allclose(out[0], flux[0] / (a @ c), rtol=1e-8)


def test_a_chip_without_a_continuum_is_left_out():
    flux, error = np.ones((1, 20)), np.ones((1, 20))
    flux[0, 10:] = np.nan
    out, _ = normalise(flux, error, np.ones(20, bool), [slice(0, 10), slice(10, 20)])
    assert np.isfinite(out[0, :10]).all() and np.isnan(out[0, 10:]).all()
    out, _ = normalise(-np.ones((1, 20)), error, np.ones(20, bool), [slice(0, 20)])
    assert np.isnan(out).all()


def star_file(path, rows, *, mask=True):
    wave, flux, slope = spectrum_on_grid()
    many = np.tile(flux * slope, (rows, 1)) * np.arange(1, rows + 1)[:, None]
    bad = np.zeros(many.shape, np.int16)
    bad[:, 1000] = 1 << 12
    bad[:, 1001] = 1 << 9  # a bit that does not count
    many[:, 1000] = 50.0
    images = [fits.ImageHDU(many), fits.ImageHDU(np.full(many.shape, 0.01))]
    images.append(fits.ImageHDU(bad) if mask else fits.ImageHDU(many.astype(np.float32)))
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)


def test_apstar_files(tmp_path):
    star_file(tmp_path / "apStar.fits", 4)
    found = apogee.read_apogee(tmp_path / "apStar.fits")
    wave, flux, _ = spectrum_on_grid()
    at = np.searchsorted(wave, found.wave)
    assert found.flux.shape == (1, 7514) and found.flag[0] == 0
    lost = np.flatnonzero(np.isnan(found.flux[0]))
    assert wave[at[lost]] == pytest.approx([wave[1000]])
    seen = np.isfinite(found.flux[0])
    np.testing.assert_allclose(found.flux[0, seen], flux[at][seen], atol=0.02)
    assert len(apogee.read_apogee(tmp_path / "apStar.fits", visits=True)) == 2
    assert apogee.read_apogee(tmp_path / "apStar.fits", release=12).flux.shape == (1, 7214)


def test_aspcapstar_files_are_normalised_already(tmp_path):
    star_file(tmp_path / "aspcapStar.fits", 1, mask=False)
    found = apogee.read_apogee(tmp_path / "aspcapStar.fits")
    wave, flux, slope = spectrum_on_grid()
    at = np.searchsorted(wave, found.wave)
    np.testing.assert_allclose(found.flux[0], (flux * slope)[at] + 49.0 * (at == 1000), atol=1.1)


def visit_file(path, velocity):
    """A visit, its three chips from red to blue in the frame of the observatory."""
    images = []
    for low, high in ((16473, 16955), (15855, 16436), (15142, 15810)):
        wave = np.linspace(high, low, 4096)
        rest, flux, slope = spectrum_on_grid()
        f = np.interp(wave / (1 + velocity / C_LIGHT_KM_S), rest, flux * slope)
        images.append((100 * f, np.ones(4096), np.zeros(4096, np.int16), wave))
    images[0][2][2000] = 1
    header = fits.Header({"VRAD": velocity})
    columns = [fits.ImageHDU(np.stack(c)) for c in zip(*images, strict=True)]
    fits.HDUList([fits.PrimaryHDU(header=header), *columns]).writeto(path)


def test_a_visit_is_shifted_to_rest(tmp_path):
    visit_file(tmp_path / "apVisit.fits", 80.0)
    found = apogee.read_apogee(tmp_path / "apVisit.fits")
    wave, flux, _ = spectrum_on_grid()
    expected = flux[np.searchsorted(wave, found.wave)]
    seen = np.isfinite(found.flux[0])
    assert seen.mean() > 0.97 and found.flag[0] == 0
    np.testing.assert_allclose(found.flux[0, seen], expected[seen], atol=0.02)
    inside = np.abs(found.wave - 16200) < 5  # one line: its centre is where it is at rest
    depth = 1 - found.flux[0, inside]
    assert np.sum(found.wave[inside] * depth) / depth.sum() == pytest.approx(16200, abs=0.02)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        apogee.read_apogee(tmp_path / "apVisit.fits")
    (tmp_path / "text.fits").write_text("no FITS")
    with pytest.raises(ValueError, match="not a readable FITS file"):
        apogee.read_apogee(tmp_path / "text.fits")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((2, 5)))]).writeto(tmp_path / "odd.fits")
    with pytest.raises(ValueError, match=r"3 x 4096 or 8575 pixels, got \(2, 5\)"):
        apogee.read_apogee(tmp_path / "odd.fits")
    visit_file(tmp_path / "still.fits", 0.0)
    with fits.open(tmp_path / "still.fits", mode="update") as file:
        del file[0].header["VRAD"]
    with pytest.raises(ValueError, match="no radial velocity"):
        apogee.read_apogee(tmp_path / "still.fits")


def test_a_real_visit(shared_data):
    """A dwarf of S/N 45: a continuum at one, lines below it, sky lines left out."""
    path = shared_data / "stars" / "visits" / "apVisit-r13-5095-55844-128.fits"
    found = apogee.read_apogee(path)
    seen = np.isfinite(found.flux[0])
    assert 0.6 < seen.mean() < 0.99
    assert not found.flag[0] & int(StarFlag.NO_PIXELS)
    assert np.median(found.flux[0, seen]) == pytest.approx(1.0, abs=0.02)
    signal = np.median(found.flux[0, seen] / found.error[0, seen])
    assert 30 < signal < 60
    continuum = apogee.continuum_pixels() & seen
    # A sky line that no bit marks is still there, so the robust scatter.
    assert robust_scatter(found.flux[0, continuum]) < 0.03
