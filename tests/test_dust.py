"""Attenuation curves against DSPS and plain transcriptions of the papers; prior-edge gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxsed.emulators import load_spectrum_emulator
from jaxsed.rest_frame import dust_curves as dust
from jaxsed.sps.dust.attenuation import CharlotFall

# The range of the shipped SSP grid and beyond.
WAVE = np.geomspace(91.0, 1e6, 400)


@pytest.fixture
def att_curves(import_dsps):
    return import_dsps("dsps.dust.att_curves")


def _fsps_dust_type_4(wave, delta):
    """Transcription of the published formula with the coefficients FSPS uses."""
    y = 1e4 / wave
    blue = 1.17 * (-2.156 + 1.509 * y - 0.198 * y**2 + 0.011 * y**3) + 1.78
    red = 1.17 * (-1.857 + 1.04 * y) + 1.78
    calzetti = np.where(wave < 6300, blue, red) / 0.44 / 4.05
    drude = (0.85 - 1.9 * delta) * (wave * 350.0) ** 2
    drude /= (wave**2 - 2175.0**2) ** 2 + (wave * 350.0) ** 2
    return (np.maximum(calzetti, 0.0) + drude / 4.05) * (wave / 5500.0) ** delta


def _kriek_conroy_2013(wave, dust2, delta):
    """Optical depth by eqs. 1-3 of the paper, with eq. 4 of Calzetti+ (2000), in float64."""
    y = 1e4 / wave
    blue = 2.659 * (-2.156 + 1.509 * y - 0.198 * y**2 + 0.011 * y**3) + 4.05
    calzetti = np.maximum(np.where(wave < 6300, blue, 2.659 * (-1.857 + 1.040 * y) + 4.05), 0.0)
    drude = (wave * 350.0) ** 2 / ((wave**2 - 2175.0**2) ** 2 + (wave * 350.0) ** 2)
    k = np.maximum(calzetti + (0.85 - 1.9 * delta) * drude, 0.0) / 4.05
    return dust2 * k * (wave / 5500.0) ** delta


@pytest.mark.parametrize("stored", [False, True], ids=["physics", "emulator"])
def test_physics_and_emulator_have_the_dust_of_the_paper(stored):
    emulator = load_spectrum_emulator("provabgs")
    curve = emulator.screen if stored else CharlotFall.build(emulator.wave).diffuse
    assert type(curve) is dust.KriekConroyCurve
    for dust2, delta in ((0.3, -0.7), (2.0, 0.9), (0.0, 0.0), (1.0, -2.2), (3.0, 1.0)):
        expected = _kriek_conroy_2013(emulator.wave, dust2, delta)
        np.testing.assert_allclose(curve.depth(dust2, delta), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("delta", [-3.0, -1.0, 0.0, 0.4])
def test_kriek_conroy_is_dust_type_4_of_fsps(delta):
    wave = WAVE[WAVE < 2.8e4]
    slope = (wave / 5500.0) ** delta
    ours, theirs = dust.kriek_conroy(wave, delta) / slope, _fsps_dust_type_4(wave, delta) / slope
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1.2e-3)


@pytest.mark.parametrize("delta", [-2.0, -0.5, 0.0, 0.5, 1.0])
def test_kriek_conroy_is_the_noll_curve_of_dsps(att_curves, delta):
    wave = WAVE[WAVE > 1500.0]  # below, DSPS changes to Leitherer+ 2002
    bump = float(att_curves._get_eb_from_delta(delta))
    expected = att_curves.noll09_k_lambda(wave / 1e4, bump, delta) / att_curves.RV_C00
    # DSPS lets the linear formula of Calzetti go negative beyond 3.1 micron under the bump's
    # tail, and clips the sum: the two differ there by that tail.
    np.testing.assert_allclose(dust.kriek_conroy(wave, delta), expected, rtol=1e-4, atol=1e-3)


def test_without_slope_and_bump_it_is_calzetti(att_curves):
    curve = dust.KriekConroyCurve.build(WAVE)(0.0, bump=0.0)
    np.testing.assert_allclose(curve, dust.calzetti(WAVE), rtol=1e-5, atol=1e-6)
    inside = (WAVE > 1200.0) & (WAVE < 2.2e4)
    expected = att_curves.calzetti00_k_lambda(WAVE[inside] / 1e4) / att_curves.RV_C00
    np.testing.assert_allclose(curve[inside], expected, rtol=1e-4)


def test_curve_is_one_at_5500():
    for delta, tolerance in ((0.4, 1e-3), (0.0, 1e-3), (-1.0, 4e-3), (-3.0, 1e-2)):
        assert abs(float(dust.kriek_conroy([5500.0], delta)[0]) - 1.0) < tolerance
        assert float(dust.power_law([5500.0], delta)[0]) == 1.0
    _, old = CharlotFall.build([5500.0], diffuse="power_law")(0.0, 1.0, -0.7)
    np.testing.assert_allclose(-2.5 * np.log10(old), 1.0857, rtol=1e-4)


@pytest.mark.parametrize("delta", [-3.0, 0.0, 1.0])
def test_curve_is_never_negative_and_transparent_in_the_far_infrared(delta):
    curve = np.asarray(dust.kriek_conroy(WAVE, delta))
    assert np.all(np.isfinite(curve)) and np.all(curve >= 0.0)
    assert np.all(curve[WAVE > 5e4] < 0.06)


def test_bump_peaks_at_2175():
    wave = np.arange(1500.0, 3500.0)
    curve = dust.KriekConroyCurve.build(wave)
    assert abs(wave[int(jnp.argmax(curve.bump))] - 2175.0) <= 1.0
    excess = curve(0.0, bump=1.0) - curve(0.0, bump=0.0)
    half = wave[np.asarray(excess) > 0.5 * float(excess.max())]
    np.testing.assert_allclose(half[-1] - half[0], 350.0, atol=3.0)  # full width at half maximum


def test_charlot_fall_screens():
    screens = CharlotFall.build(WAVE)
    young, old = screens(0.7, 0.4, -0.3)
    np.testing.assert_allclose(
        old, np.exp(-0.4 * dust.kriek_conroy(WAVE, -0.3)), rtol=1e-5, atol=1e-30
    )
    np.testing.assert_allclose(young, old * np.exp(-0.7 * 5500.0 / WAVE), rtol=1e-5, atol=1e-30)
    young, old = screens(0.0, 0.0, -0.3)
    assert np.all(young == 1.0) and np.all(old == 1.0)


@pytest.mark.parametrize("diffuse", ["kriek_conroy", "power_law"])
def test_float32_gradients_are_finite_at_the_prior_edges(diffuse):
    screens = CharlotFall.build(WAVE, diffuse=diffuse)
    jacobian = jax.jit(jax.jacfwd(screens, argnums=(0, 1, 2)))
    gradient = jax.jit(jax.grad(lambda *p: sum(jnp.sum(t) for t in screens(*p)), (0, 1, 2)))
    for dust1 in (0.0, 4.0):
        for dust2 in (0.0, 4.0):
            for delta in (-3.0, 0.0, 1.0):
                for derivative in (jacobian, gradient):
                    leaves = jax.tree.leaves(derivative(dust1, dust2, delta))
                    assert all(np.all(np.isfinite(leaf)) for leaf in leaves)


@pytest.mark.parametrize("diffuse", ["kriek_conroy", "power_law"])
def test_gradients(x64, diffuse):
    screens = CharlotFall.build(np.geomspace(800.0, 3e4, 30), diffuse=diffuse)
    check_grads(screens, (0.5, 0.3, -0.4), order=1, modes=("fwd", "rev"), rtol=1e-6)


def test_vmap_is_the_loop():
    screens = CharlotFall.build(WAVE)
    theta = jnp.array([[0.1, 0.2, -1.0], [2.0, 1.0, 0.3]])
    together = jax.vmap(lambda t: screens(*t))(theta)
    for i, row in enumerate(theta):
        for batched, single in zip(together, screens(*row), strict=True):
            np.testing.assert_allclose(batched[i], single, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("wave", [[], [0.0, 1.0], [[1.0]], [np.nan]])
def test_bad_wavelengths_are_refused(wave):
    with pytest.raises(ValueError, match="wave must be"):
        dust.KriekConroyCurve.build(wave)


def test_unknown_curve_is_refused():
    with pytest.raises(ValueError, match="kriek_conroy"):
        CharlotFall.build(WAVE, diffuse="calzeti")


def test_products_are_in_full_precision():
    """Also on GPUs, which would round the factors of a batch to ten bits."""
    screens = jax.jit(jax.vmap(CharlotFall.build(WAVE)))
    program = screens.lower(*jnp.ones((3, 5))).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products and all("HIGHEST" in line for line in products)
