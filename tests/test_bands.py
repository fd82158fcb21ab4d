"""Filters and projected band fluxes, against astro-sedpy and plain integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sedpy import observate

from jaxsed.bands import filters, projection
from jaxsed.core.constants import C_LIGHT
from jaxsed.sps.ssp.grid import load_ssp, resample
from jaxsed.sps.ssp.wavelengths import log_wave_grid

NAMES = ("sdss_u0", "sdss_g0", "sdss_r0", "acs_wfc_f850lp", "twomass_Ks", "spitzer_irac_ch2")
LN_STEP = 0.005


@pytest.fixture(scope="module")
def spectrum():
    """A galaxy with emission lines and breaks, on the grid of the direct physics."""
    ssp = load_ssp()
    wave = log_wave_grid(300.0, 9e4, LN_STEP)
    light = resample(ssp, wave).lnu[3]
    return wave, np.asarray(light[5] + 40 * light[45], float) * 1e15


@pytest.fixture(scope="module")
def bands():
    return [filters.load_filter(name) for name in NAMES]


def _seen(spectrum, redshift, over=20):
    """The observed spectrum, with the linear pieces in ln(wavelength) written out finely."""
    wave, light = spectrum
    fine = np.exp(np.linspace(np.log(wave[0]), np.log(wave[-1]), over * (wave.size - 1) + 1))
    return fine * (1 + redshift), np.interp(np.log(fine), np.log(wave), light)


@pytest.mark.parametrize("redshift", [0.0, 0.0371, 0.5, 1.2345, 3.0])
def test_projection_agrees_with_sedpy(spectrum, bands, redshift):
    project = projection.project(bands, spectrum[0])
    ours = project(jnp.asarray(spectrum[1]), jnp.asarray(redshift))
    wave, f_nu = _seen(spectrum, redshift)
    f_lambda = f_nu * 3631e-23 * C_LIGHT / wave**2
    filters = [observate.Filter(name) for name in NAMES]
    expected = 10 ** (-0.4 * np.array([f.ab_mag(wave, f_lambda) for f in filters]))
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


@pytest.mark.parametrize("redshift", [0.0, 0.7, 2.9])
def test_projection_agrees_with_the_plain_integral(spectrum, bands, redshift):
    project = projection.project(bands, spectrum[0])
    ours = project(jnp.asarray(spectrum[1]), jnp.asarray(redshift))
    seen = _seen(spectrum, redshift)
    expected = [filters.ab_flux(*seen, band) for band in bands]
    np.testing.assert_allclose(ours, expected, rtol=3e-4)


def test_flat_spectrum_has_its_own_flux_in_every_band(spectrum, bands):
    wave = spectrum[0]
    flux = projection.project(bands, wave)(jnp.full(wave.size, 3.0), jnp.asarray(0.42))
    np.testing.assert_allclose(flux, 3.0, rtol=1e-5)
    assert filters.ab_flux(wave, np.full(wave.size, 3.0), bands[1]) == pytest.approx(3.0)


def test_flux_is_c1_in_redshift(spectrum, bands, x64):
    project = projection.project(bands, spectrum[0])
    light = jnp.asarray(spectrum[1])
    flux = jax.jit(jax.vmap(lambda z: project(light, z)))
    slope = jax.jit(jax.vmap(jax.jacfwd(lambda z: project(light, z))))
    # 1 + z a whole number of grid steps: where the projection changes pixels.
    step = np.log(spectrum[0][-1] / spectrum[0][0]) / (spectrum[0].size - 1)
    joints = np.exp(step * np.array([17, 90, 211])) - 1
    below, above = jnp.asarray(joints - 1e-9), jnp.asarray(joints + 1e-9)
    np.testing.assert_allclose(flux(below), flux(above), rtol=1e-7)
    np.testing.assert_allclose(slope(below), slope(above), rtol=1e-5, atol=1e-7)
    z, h = jnp.asarray([0.123, 0.9, 2.2]), 1e-6
    finite = (flux(z + h) - flux(z - h)) / (2 * h)
    np.testing.assert_allclose(slope(z), finite, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("redshift", [3.0, 9.0, 40.0])
def test_no_light_off_the_grid(redshift):
    """A narrow band that is redshifted further beyond the grid than it is wide."""
    band = filters.make_filter("x", [3500.0, 3600.0, 3700.0], [0.0, 1.0, 0.0])
    project = projection.project([band], log_wave_grid(1000.0, 4000.0, LN_STEP))
    flux = project(jnp.ones(278), jnp.asarray(redshift))
    np.testing.assert_array_equal(flux, 0.0)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("SLOAN/SDSS.r", "sdss_r0"),
        ("sdss2010-g", "sdss_g0"),
        ("JWST/NIRCam.F200W", "jwst_f200w"),
        ("HST/ACS_WFC.F814W", "acs_wfc_f814w"),
        ("HST/WFC3_IR.F160W", "wfc3_ir_f160w"),
        ("Spitzer/IRAC.I1", "spitzer_irac_ch1"),
        ("WISE/WISE.W1", "wise_w1"),
        ("2MASS/2MASS.Ks", "twomass_Ks"),
        ("GALEX/GALEX.NUV", "galex_NUV"),
    ],
)
def test_names_of_other_services(alias, name):
    ours, theirs = filters.load_filter(alias), observate.Filter(name)
    assert ours.name == name
    assert ours.pivot == pytest.approx(theirs.wave_pivot, rel=1e-3)


def test_every_alias_is_a_known_curve():
    known = set(observate.list_available_filters())
    assert not set(filters.ALIASES.values()) - known


def test_shipped_curves_load_by_name():
    ks = filters.load_filter("goodss_hawki_ks")
    assert 21000 < ks.pivot < 22000 and ks.trans.min() >= 0


def test_unknown_name_suggests_others():
    with pytest.raises(ValueError, match="unknown filter 'sdss_r'.*sdss_r0"):
        filters.load_filter("sdss_r")


def test_reads_text_in_other_units(tmp_path):
    path = tmp_path / "mine.dat"
    np.savetxt(path, [[0.45, 0.0], [0.5, 0.8], [0.55, -1e-4]], header="wave trans")
    band = filters.load_filter(str(path), "um")
    np.testing.assert_allclose(band.wave, [4500, 5000, 5500])
    assert band.trans.min() == 0.0 and band.name == "mine"
    with pytest.raises(ValueError, match='pivot wavelength.*wave_unit = "um"'):
        filters.read_filter(path)
    with pytest.raises(ValueError, match="unknown wavelength unit 'furlong'"):
        filters.read_filter(path, "furlong")


def test_unreadable_file(tmp_path):
    path = tmp_path / "prose.dat"
    path.write_text("this is no curve\n")
    with pytest.raises(ValueError, match="cannot read filter curve.*prose.dat"):
        filters.load_filter(str(path))


@pytest.mark.parametrize(
    ("wave", "trans", "message"),
    [
        ([1.0, 2.0], [0.1, 0.2], "two columns of at least three rows"),
        ([1.0, 2.0, 3.0], [0.1, np.nan, 0.2], "not finite"),
        ([4000.0, 5000.0, 6000.0], [0.0, -0.1, 0.0], "some transmission"),
        ([-1.0, 5000.0, 6000.0], [0.0, 0.1, 0.0], "above zero"),
    ],
)
def test_bad_curves(wave, trans, message):
    with pytest.raises(ValueError, match=f"filter x: .*{message}"):
        filters.make_filter("x", wave, trans)


def test_unsorted_and_repeated_rows_are_mended():
    band = filters.make_filter("x", [6e3, 4e3, 5e3, 5e3], [0.0, 0.0, 1.0, 1.0])
    np.testing.assert_allclose(band.wave, [4e3, 5e3, 6e3])


def test_projection_needs_bands_and_a_uniform_grid(spectrum, bands):
    with pytest.raises(ValueError, match="at least one band"):
        projection.project([], spectrum[0])
    with pytest.raises(ValueError, match="uniform in ln"):
        projection.project(bands, np.linspace(1e3, 1e4, 500))
