"""IGM transmission against a case-by-case transcription of the papers; smoothness of the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxsed.sps import igm

REDSHIFTS = (0.6, 1.1, 1.5, 1.9, 2.5, 3.5, 4.6, 4.8, 6.0, 8.0)
WAVE = np.linspace(400.0, 1300.0, 451)
LN_GRID = np.exp(np.arange(np.log(300.0), np.log(1500.0), 0.004))


def _inoue_tau(wave, z):
    """Inoue+ 2014 eq. 21-29 as printed, case by case, for one observed wavelength > 912 A."""
    tau, obs = 0.0, wave * (1 + z)
    for lam, a1, a2, a3, d1, d2 in igm._INOUE_LINES:
        x = obs / lam
        if not 1 < x < 1 + z:
            continue
        if x < 2.2:
            tau += a1 * x**1.2
        elif x < 5.7:
            tau += a2 * x**3.7
        else:
            tau += a3 * x**5.5
        tau += d1 * x**2 if x < 3 else d2 * x**3
    x, s = obs / 911.8, 1 + z
    if x < s:
        if z < 1.2:
            tau += 0.325 * (x**1.2 - s**-0.9 * x**2.1)
        elif z < 4.7:
            if x < 2.2:
                tau += 2.55e-2 * s**1.6 * x**2.1 + 0.325 * x**1.2 - 0.250 * x**2.1
            else:
                tau += 2.55e-2 * (s**1.6 * x**2.1 - x**3.7)
        elif x < 2.2:
            tau += 5.22e-4 * s**3.4 * x**2.1 + 0.325 * x**1.2 - 3.14e-2 * x**2.1
        elif x < 5.7:
            tau += 5.22e-4 * s**3.4 * x**2.1 + 0.218 * x**2.1 - 2.55e-2 * x**3.7
        else:
            tau += 5.22e-4 * (s**3.4 * x**2.1 - x**5.5)
        if z < 2:
            tau += 0.211 * s**2 - 7.66e-2 * s**2.3 * x**-0.3 - 0.135 * x**2
        elif x < 3:
            tau += 0.634 + 4.70e-2 * s**3 - 1.78e-2 * s**3.3 * x**-0.3
            tau -= 0.135 * x**2 + 0.291 * x**-0.3
        else:
            tau += 4.70e-2 * s**3 - 1.78e-2 * s**3.3 * x**-0.3 - 2.92e-2 * x**3
    return tau


def _madau_tau(wave, z):
    """Madau 1995 eq. 15 (first four lines) and footnote 3, for one wavelength > 950 or < 912 A."""
    obs, tau = wave * (1 + z), 0.0
    lines = (1215.67, 0.0036), (1025.72, 0.0017), (972.537, 0.0011846), (949.743, 0.000941)
    for lam, a in lines:
        if wave < lam:
            tau += a * (obs / lam) ** 3.46
    if wave < 1215.67:
        tau += 0.0017 * (obs / 1215.67) ** 1.68
    return tau


def _settled(wave, z):
    """Where the published depth holds: away from the onsets of the lines and from 912 A."""
    lines = np.array([row[0] for row in igm._INOUE_LINES])
    ln_x = np.log(wave * (1 + z) / lines[:, None])
    return np.all((ln_x < 0) | (ln_x > 0.02), axis=0) & (wave * (1 + z) > 912.0)


@pytest.mark.parametrize("z", REDSHIFTS)
def test_inoue_is_the_published_formula(z):
    use = _settled(WAVE, z)
    expected = np.exp([-_inoue_tau(wave, z) for wave in WAVE[use]])
    # The coefficients of the continuum are printed to three digits, ours have four.
    found = np.asarray(igm.transmission(WAVE, z))
    np.testing.assert_allclose(found[use], expected, atol=6e-3)
    forest = use & (WAVE > 912.0)  # no such rounding in the lines
    expected = np.exp([-_inoue_tau(wave, z) for wave in WAVE[forest]])
    np.testing.assert_allclose(found[forest], expected, atol=2e-5)


def test_inoue_table_is_continuous_where_its_power_laws_meet():
    _, a1, a2, a3, d1, d2 = np.array(igm._INOUE_LINES).T
    np.testing.assert_allclose(a1 * 2.2**1.2, a2 * 2.2**3.7, rtol=1e-5)
    np.testing.assert_allclose(a2 * 5.7**3.7, a3 * 5.7**5.5, rtol=1e-5)
    np.testing.assert_allclose(d1 * 3.0**2, d2 * 3.0**3, rtol=1e-5)


@pytest.mark.parametrize("z", [2.5, 3.0, 4.0])
def test_lyman_alpha_forest_depth_is_the_observed_one(z):
    # Becker+ 2013 (MNRAS 430, 2067): the mean depth of the forest in SDSS quasars.
    observed = 0.751 * ((1 + z) / 4.5) ** 2.90 - 0.132
    wave = np.array([1215.0])
    source = (1 + z) * 1215.67 / 1215.0 - 1  # the forest at z, just blueward of the line
    np.testing.assert_allclose(igm.optical_depth(wave, source)[0], observed, rtol=0.1)


@pytest.mark.parametrize("z", [0.6, 2.0, 4.0, 6.0])
def test_madau_lines(z):
    wave = np.array([960.0, 1000.0, 1100.0, 1200.0])
    expected = [_madau_tau(w, z) for w in wave]
    ours = igm.optical_depth(wave, z, model="madau1995")
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_madau_continuum_adds_to_the_lines():
    wave, z = 800.0, 3.0
    x, s = wave * (1 + z) / 911.8, 1 + z
    continuum = 0.25 * x**3 * (s**0.46 - x**0.46) + 9.4 * x**1.5 * (s**0.18 - x**0.18)
    continuum -= 0.7 * x**3 * (x**-1.32 - s**-1.32) + 0.023 * (s**1.68 - x**1.68)
    lines = sum(
        a * (wave * s / row[0]) ** 3.46
        for a, row in zip(igm._MADAU_LINES, igm._INOUE_LINES, strict=False)
    )
    metals = 0.0017 * (wave * s / 1215.67) ** 1.68
    ours = igm.optical_depth(np.array([wave]), z, model="madau1995")[0]
    np.testing.assert_allclose(ours, continuum + lines + metals, rtol=1e-4)


@pytest.mark.parametrize("model", ["inoue2014", "madau1995"])
def test_limits(model):
    wave = np.geomspace(91.0, 1e5, 300)
    for z in (-0.01, 0.0):
        assert np.all(igm.transmission(wave, z, model=model) == 1.0)
    for z in (1e-4, 0.3, 3.0, 20.0):
        seen = np.asarray(igm.transmission(wave, z, model=model))
        assert np.all((seen >= 0.0) & (seen <= 1.0))
        assert np.all(seen[wave > 1215.67] == 1.0)
    np.testing.assert_allclose(igm.transmission(wave, 1e-4, model=model), 1.0, atol=1e-3)


@pytest.mark.parametrize("model", ["inoue2014", "madau1995"])
def test_gradient_in_redshift(x64, model):
    wave = np.array([700.0, 905.0, 930.0, 1000.0, 1150.0])
    seen = jax.jit(lambda z: igm.transmission(wave, z, model=model))
    for z in (0.05, 1.0, 1.7, 3.3, 6.1):
        check_grads(seen, (z,), order=1, rtol=1e-3)


@pytest.mark.parametrize("model", ["inoue2014", "madau1995"])
def test_float32_gradients_are_finite(model):
    wave = np.geomspace(91.0, 1e5, 100)
    table = igm.igm_table(LN_GRID, model=model)
    slope = jax.jit(jax.jacfwd(lambda z: igm.transmission(wave, z, model=model)))
    back = jax.jit(jax.grad(lambda z: jnp.sum(table(z))))
    for z in (0.0, 1e-6, 1.2, 2.0, 4.7, 10.0, 20.0):
        assert np.all(np.isfinite(slope(z)))
        assert np.isfinite(back(z))


@pytest.mark.parametrize("model", ["inoue2014", "madau1995"])
def test_table_interpolates_the_formula(model):
    table = igm.igm_table(LN_GRID, z_max=12.0, model=model, samples=1)
    rng = np.random.default_rng(1)
    redshift = np.concatenate([rng.uniform(0, 1, 50), rng.uniform(0, 12, 100)])
    tabulated = np.asarray(jax.vmap(table)(jnp.asarray(redshift)))
    for got, z in zip(tabulated, redshift, strict=True):
        tau = igm.MODELS[model](LN_GRID[: table.size], 1 + z, np)
        np.testing.assert_allclose(got, np.exp(-tau), atol=4e-4)


def test_table_is_continuously_differentiable(x64):
    table = igm.igm_table(LN_GRID, z_max=6.0)
    slope = jax.jacfwd(table)
    for node in (0, 50, 197, 400):  # 197 is next to the kink at z = 1.2
        z = np.expm1(node * table.step)
        below, above = z * (1 - 1e-9) - 1e-12 * (node > 0), z + 1e-9
        np.testing.assert_allclose(table(below), table(above), atol=1e-8)
        if node:
            np.testing.assert_allclose(slope(below), slope(above), atol=1e-6)
    check_grads(lambda z: table(z), (2.345,), order=1, rtol=1e-3)


def test_table_keeps_the_mean_flux_about_lyman_alpha():
    grid = np.exp(np.arange(np.log(1000.0), np.log(1500.0), 0.02))
    table = igm.igm_table(grid, z_max=6.0)
    coarse = np.ones(grid.size)
    coarse[: table.size] = table(5.0)
    edges = np.exp(np.log(grid[0]) - 0.01), np.exp(np.log(grid[-1]) + 0.01)
    fine = np.exp(np.linspace(np.log(edges[0]), np.log(edges[1]), 20001))
    exact = np.mean(igm.transmission(fine, 5.0))
    np.testing.assert_allclose(coarse.mean(), exact, atol=2e-3)


def test_table_stops_at_its_ends_and_at_lyman_alpha():
    table = igm.igm_table(LN_GRID, z_max=3.0, samples=1)
    assert table.size == np.sum(LN_GRID < 1215.67)
    assert np.all(table(0.0) == 1.0)
    np.testing.assert_array_equal(table(3.0), table(5.0))
    red = igm.igm_table(np.array([2000.0, 3000.0, 4000.0]))
    assert red(4.0).shape == (0,)


def test_jit_and_vmap_agree_with_the_single_call():
    table = igm.igm_table(LN_GRID, z_max=6.0)
    z = jnp.array([0.0, 0.7, 5.5])
    together = jax.jit(lambda t, z: jax.vmap(t)(z))(table, z)
    for row, one in zip(together, z, strict=True):
        np.testing.assert_allclose(row, table(one), rtol=1e-5, atol=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="inoue2014"):
        igm.transmission(WAVE, 1.0, model="meiksin")
    with pytest.raises(ValueError, match="increasing"):
        igm.igm_table(WAVE[::-1])
    with pytest.raises(ValueError, match="z_max"):
        igm.igm_table(WAVE, z_max=-1.0)
