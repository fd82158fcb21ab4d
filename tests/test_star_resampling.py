"""Spectra of other surveys: air, velocities, resolution, pixels, and labels at the end of it."""

import functools

import jax
import numpy as np
import pytest

from jaxsed import stars as st
from jaxsed.core.constants import C_LIGHT_KM_S
from jaxsed.learn import FitSettings
from jaxsed.stars import networks
from jaxsed.stars.data import StarFlag


def lines(wave):
    """Three lines at vacuum wavelengths."""
    return 1 - sum(0.4 * np.exp(-(((wave - w) / 2.0) ** 2)) for w in (5000.0, 5050.0, 5120.0))


def centre(wave, flux, near):
    inside = np.abs(wave - near) < 10
    return np.sum(wave[inside] * (1 - flux[inside])) / np.sum(1 - flux[inside])


def test_air_velocity_and_barycentric_correction_come_off():
    """A star that recedes at 60 km/s, seen from an observatory that moves away at 20 km/s."""
    rest = np.arange(4950.0, 5180.0, 0.25)
    # The observatory moves away from the star, so it sees 80 km/s, and the correction is -20.
    z = (1 + 60 / C_LIGHT_KM_S) / (1 - 20 / C_LIGHT_KM_S)
    index = 1.000277  # of air in this range
    found = st.at_rest(rest * z / index, 60.0, barycentric=-20.0, air=True)
    np.testing.assert_allclose(found, rest, rtol=3e-6)
    both = st.at_rest(rest, [0.0, 300.0])
    np.testing.assert_array_equal(both[0], rest)
    np.testing.assert_allclose(both[1], rest / 1.0010007, rtol=1e-7)
    with pytest.raises(ValueError, match="velocity is not finite"):
        st.at_rest(rest, [0.0, np.nan])


def test_resampling_is_the_mean_over_a_pixel():
    """Against the integral of straight lines, by a fine sum."""
    generator = np.random.default_rng(0)
    wave = np.sort(generator.uniform(5000, 5100, 80))
    flux = generator.normal(size=(1, 80))
    target = np.linspace(5010, 5090, 15)
    found, _ = st.resample(wave, flux, np.ones((1, 80)), target)
    step = target[1] - target[0]
    fine = target[:, None] + step * (np.arange(4000) + 0.5 - 2000) / 4000
    np.testing.assert_allclose(found[0], np.interp(fine, wave, flux[0]).mean(axis=1), atol=2e-3)


@pytest.mark.parametrize("step", [0.13, 0.7, 3.1])
def test_uncertainties_are_those_of_many_noisy_spectra(step):
    generator = np.random.default_rng(1)
    wave = np.arange(5000.0, 5060.0, 0.7)
    error = generator.uniform(0.5, 2.0, wave.size)
    many = error * generator.normal(size=(3000, wave.size))
    target = np.arange(5005.0, 5055.0, step)
    flux, noise = st.resample(wave, many, np.broadcast_to(error, many.shape), target)
    np.testing.assert_allclose(flux.std(axis=0), noise[0], rtol=0.08)


def test_lines_keep_their_place_and_depth_through_all_steps():
    observed = np.arange(4940.0, 5200.0, 0.37)
    truth = lines(observed / (1 + 250 / C_LIGHT_KM_S))
    grid = 10 ** np.arange(np.log10(4960), np.log10(5160), 1e-4)
    flux, error = st.resample(
        st.at_rest(observed, 250.0), truth[None], np.full((1, observed.size), 0.01), grid
    )
    np.testing.assert_allclose(flux[0], lines(grid), atol=0.02)
    assert centre(grid, flux[0], 5050) == pytest.approx(5050, abs=0.02)
    # Three pixels in one, about: the mean is better known than each.
    assert 0.004 < np.median(error) < 0.008


def test_bad_pixels_and_the_outside_are_left_out():
    wave = np.arange(5000.0, 5100.0, 0.5)
    flux, error = np.ones((2, 200)), np.full((2, 200), 0.1)
    mask = np.zeros((2, 200))
    flux[0, 50], mask[0, 50] = 1e6, 1
    flux[0, 100], error[0, 120] = np.nan, -1.0
    target = np.arange(4990.0, 5110.0, 0.5)
    found, noise = st.resample(wave, flux, error, target, mask=mask)
    seen = np.isfinite(found)
    np.testing.assert_allclose(found[seen], 1.0)
    assert np.isinf(noise[~seen]).all() and np.isfinite(noise[seen]).all()
    lost = target[~seen[0] & seen[1]]
    assert set(np.round(lost)) <= {5025.0, 5050.0, 5060.0} and 3 <= lost.size <= 9
    assert not seen[1, target < 4999.7].any() and not seen[1, target > 5099.8].any()
    assert seen[1, (target > 5000.3) & (target < 5099.2)].all()


def test_resolution_is_lowered_to_what_is_asked():
    wave = 5000 * np.exp(np.arange(-400, 400) * 1e-5)
    line = np.exp(-0.5 * (np.log(wave / 5000) * 50_000 * 2.3548) ** 2)
    flux, error = st.to_resolution(wave, 1 - line, np.full(wave.size, 0.1), 20_000, of=50_000)
    depth = 1 - flux[0]
    width = np.sqrt(np.sum(depth * np.log(wave / 5000) ** 2) / depth.sum())
    assert 1 / (width * 2.3548) == pytest.approx(20_000, rel=0.01)
    assert depth.sum() == pytest.approx(line.sum(), rel=1e-3)
    assert error[0, 400] < 0.06
    with pytest.raises(ValueError, match="below the spectra's 1000, got 2000"):
        st.to_resolution(wave, line, line + 1, 2000, of=1000)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"error": np.ones((2, 3))}, "expected wavelengths"),
        ({"wave": np.ones(5)}, "finite, positive and increase"),
        ({"mask": np.ones((1, 5))}, r"and \(1, 5\)"),
        ({"target": np.array([2.0, 1.0])}, "target grid"),
    ],
)
def test_impossible_spectra_are_refused(change, complaint):
    given = {
        "wave": np.arange(1.0, 6.0), "flux": np.ones((2, 5)), "error": np.ones((2, 5)),
        "target": np.array([2.0, 3.0]),
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=complaint):
        st.resample(**given)


# ------------------------------------------------------------------ other surveys

LABELS = ("teff", "logg", "fe")
SPREAD = np.array([300.0, 0.6, 0.3])
SURVEYS = {
    # grid, arms, step of the native pixels, whether these are in air
    "lamost": (10 ** np.arange(np.log10(3700), np.log10(9000), 1e-4), [(3700, 5900), (5900, 9000)],
               1.1, True),
    "desi": (np.arange(3600.0, 9824.1, 0.8), [(3600, 5780), (5780, 7560), (7560, 9825)],
             0.8, False),
}  # fmt: skip


def survey(name, n, seed, signal=80.0):
    """Spectra as a survey has them, unnormalised and moving, onto its grid: and their labels."""
    grid, arms, step, air = SURVEYS[name]
    generator = np.random.default_rng(seed)
    fixed = np.random.default_rng(5)
    place, width = fixed.uniform(3650, 9800, 250), fixed.uniform(1.5, 3.0, 250)
    slope = fixed.normal(scale=0.1, size=(3, 250))
    scaled = generator.normal(size=(n, 3))
    depth = 0.3 * np.exp(scaled @ slope)
    velocity = generator.normal(scale=100.0, size=n)
    native = np.arange(3580.0, 9850.0, step)
    at = st.at_rest(native, velocity, air=air)
    flux = np.ones((n, native.size))
    for d, w, s in zip(depth.T, place, width, strict=True):
        low, high = np.searchsorted(native, [w - 30, w + 30])
        flux[:, low:high] -= d[:, None] * np.exp(-0.5 * ((at[:, low:high] - w) / s) ** 2)
    level = 1e3 * (1 + 0.4 * generator.normal(size=(n, 1)) * (native - 6500) / 3000)
    error = np.maximum(level, 100) / signal
    flux = flux * np.maximum(level, 100) + error * generator.normal(size=flux.shape)
    mask = generator.random(flux.shape) < 0.01
    flux[mask] = 1e5
    flux, error = st.resample(at, flux, error, grid, mask=mask)
    clear = np.abs(grid[:, None] - place).min(axis=1) > 6.0
    chips = [slice(*np.searchsorted(grid, arm)) for arm in arms]
    flux, error = st.normalise(flux, error, clear, chips)
    labels = np.array([4800.0, 2.5, -0.2]) + scaled * SPREAD
    return st.spectra(grid, flux, error, names=LABELS, labels=labels)


@functools.cache
def network_for(name):
    sizes = networks.Architecture(filters=(2, 2), pool=8, dense=(24, 12), dropout=0.0, scale=None)
    schedule = FitSettings(optimizer="adam", learning_rates=(3e-3, 5e-4), batch_size=32,
                           epochs=6, patience=6)  # fmt: skip
    found, _ = st.train(
        jax.random.key(0), survey(name, 300, 0), "bcnn", progress=False,
        settings=st.StarSettings(architecture=sizes, fit=schedule),
    )  # fmt: skip
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SURVEYS)
def test_labels_of_unseen_stars_of_another_survey(name):
    unseen = survey(name, 200, 1)
    assert 0.9 < np.isfinite(unseen.flux).mean() < 0.999
    found = network_for(name).predict(jax.random.key(1), unseen)
    spread = np.array([st.robust_scatter(d) for d in (found.value - unseen.labels).T])
    assert (spread < 0.2 * SPREAD).all(), spread / SPREAD
    inside, _ = st.coverage(found.value, found.std, unseen.labels)
    assert (np.abs(inside - 0.683) < 0.17).all(), inside
    assert (found.flag == 0).mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", SURVEYS)
def test_hostile_rows_of_another_survey_are_flagged(name):
    stars = survey(name, 4, 2)
    flux, error = stars.flux.copy(), stars.error.copy()
    flux[1] = np.nan
    error = np.nan_to_num(error, nan=np.inf)
    error[2, : stars.wave.size // 2] = np.inf
    flux[3] = 1 + 5 * (flux[3] - 1)
    found = network_for(name).predict(jax.random.key(1), st.spectra(stars.wave, flux, error))
    assert found.flag[0] == 0
    assert found.flag[1] & int(StarFlag.NO_PIXELS) and np.isnan(found.value[1]).all()
    assert found.flag[2] & int(StarFlag.MANY_BAD_PIXELS)
    assert found.flag[3] & int(StarFlag.OUTSIDE_TRAINING)
