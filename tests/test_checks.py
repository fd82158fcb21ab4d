"""Self-checks pass here and fail on what is wrong; calibration tells good from bad posteriors."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from plot_data import make_emulator
from scipy.stats import kstest

from jaxsed import cosmology
from jaxsed.emulators import emulator_files
from jaxsed.sps.models.registry import family
from jaxsed.workflows import checks
from jaxsed.workflows.checks import (
    Check,
    expected_coverage,
    local_pvalue,
    pp_deviation,
    rank_pvalue,
    rank_statistics,
)


@pytest.mark.parametrize("emulators", [1, pytest.param(99, marks=pytest.mark.slow)])
def test_self_check_passes_and_names_what_it_found(monkeypatch, emulators):
    real, seen = checks.check_emulator, []

    def some(path):
        seen.append(path.name)
        return real(path) if len(seen) <= emulators else Check(path.name, "within", True)

    monkeypatch.setattr(checks, "check_emulator", some)
    found = checks.self_check(seconds=900.0)
    assert [check.name for check in found[:3]] == ["cosmology", "physics", "hmc on a Gaussian"]
    assert seen == [check.name for check in found[3:]] and len(seen) > 3
    for check in found:
        assert check.ok, check
        assert "within" in check.found


def test_self_check_stops_in_time(monkeypatch):
    monkeypatch.setattr(checks, "check_cosmology", lambda: Check("cosmology", "fine", True))
    found = checks.self_check(seconds=-1.0)
    assert all(check.ok and check.found.startswith("not run") for check in found)


def test_wrong_cosmology_is_found(monkeypatch):
    assert checks.check_cosmology().ok
    monkeypatch.setattr(cosmology, "WMAP9", cosmology.PLANCK15)
    assert not checks.check_cosmology().ok


def test_wrong_physics_is_found(monkeypatch):
    changed = tuple(m + 0.01 for m in checks.REFERENCE_MAGNITUDES)
    assert checks.check_physics().ok
    monkeypatch.setattr(checks, "REFERENCE_MAGNITUDES", changed)
    assert not checks.check_physics().ok


def test_what_is_not_a_number_is_no_agreement(monkeypatch):
    """Python's max keeps the first of two values that do not compare."""
    assert checks.check_physics().ok and checks.check_cosmology().ok
    right = dict(checks.REFERENCE_DERIVED)
    for name in right:
        monkeypatch.setattr(checks, "REFERENCE_DERIVED", right | {name: np.nan})
        assert not checks.check_physics().ok
    age = cosmology.age
    monkeypatch.setattr(cosmology, "age", lambda z, c: jnp.where(z == 2.0, jnp.nan, age(z, c)))
    assert not checks.check_cosmology().ok


def test_wrong_posterior_is_found(monkeypatch):
    mean, covariance = checks.gaussian_posterior()
    monkeypatch.setattr(checks, "gaussian_posterior", lambda: (mean, 1.5 * covariance))
    assert not checks.check_sampler().ok
    monkeypatch.setattr(checks, "gaussian_posterior", lambda: (mean + 0.3, covariance))
    assert not checks.check_sampler().ok


@pytest.mark.parametrize("sigma", [0.004, 10.0])  # claiming to be good, admitting to be bad
def test_untrained_emulator_is_found(tmp_path, sigma):
    emulator = make_emulator(4)
    error = dataclasses.replace(emulator.error_ab, sigma=jnp.full(4, sigma))
    dataclasses.replace(emulator, error_ab=error).save(tmp_path / "emulator_wrong.h5")
    check = checks.check_emulator(tmp_path / "emulator_wrong.h5")
    assert check.name == "emulator_wrong.h5"
    assert not check.ok


def test_an_emulator_is_compared_at_the_median_of_its_prior(monkeypatch):
    """Not at zero of the coordinates, where a burst is young."""
    seen, (path,) = [], [p for p in emulator_files() if p.stem == "emulator_provabgs_sdss"]
    real = checks._exact_and_emulated

    def compared(model, emulator, theta):
        seen.append(theta)
        return real(model, emulator, theta)

    monkeypatch.setattr(checks, "_exact_and_emulated", compared)
    assert checks.check_emulator(path).ok
    ((theta,), prior) = seen, family("provabgs").prior(float(seen[0].redshift))
    burst = prior.t_burst.prior
    np.testing.assert_allclose(theta.t_burst, 0.5 * (burst.low + burst.high), rtol=1e-4)
    np.testing.assert_allclose(theta.dust2, 1.5, rtol=1e-4)


def test_what_breaks_is_told(monkeypatch):
    def broken():
        raise RuntimeError("the disk is on fire\nand more")

    monkeypatch.setattr(checks, "check_cosmology", broken)
    found = checks.self_check(seconds=1.0)[0]
    assert found == Check("cosmology", "RuntimeError: the disk is on fire", False)


def test_known_posterior_is_that_of_a_brute_force_grid():
    axis = np.linspace(-4, 4, 81)
    mean, covariance = checks.gaussian_posterior()
    sigma = np.sqrt(np.diag(covariance))
    theta = np.stack(np.meshgrid(*(m + s * axis for m, s in zip(mean, sigma, strict=True))), -1)
    residual = (theta @ checks.MATRIX.T - checks.FLUX) / checks.ERROR
    prior = (theta - checks.PRIOR[:, 0]) / checks.PRIOR[:, 1]
    weight = np.exp(-0.5 * ((residual**2).sum(-1) + (prior**2).sum(-1)))
    brute = (weight[..., None] * theta).sum((0, 1, 2)) / weight.sum()
    np.testing.assert_allclose(brute, mean, atol=2e-3)


# ------------------------------------------------------------------ calibration


def toy(width, shift=0.0, n=1500, n_draws=99, seed=0):
    """Truths from N(0, 1), data with unit noise; posterior draws of relative width `width`."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    data = truth + rng.normal(size=n)
    sigma = np.sqrt(0.5)
    draws = 0.5 * data[:, None] + sigma * (shift + width * rng.normal(size=(n, n_draws)))
    return truth, draws


def test_calibrated_posteriors_pass():
    assert rank_pvalue(rank_statistics(*toy(1.0)), 99) > 0.01


@pytest.mark.parametrize(("width", "shift"), [(0.7, 0.0), (1.4, 0.0), (1.0, 0.3), (1.0, -0.3)])
def test_wrong_posteriors_fail(width, shift):
    assert rank_pvalue(rank_statistics(*toy(width, shift)), 99) < 1e-6


def test_pvalues_of_calibrated_posteriors_are_uniform():
    values = [rank_pvalue(rank_statistics(*toy(1.0, seed=s, n=400)), 99) for s in range(200)]
    assert kstest(values, "uniform").pvalue > 0.01


def test_bins_need_not_divide_the_ranks():
    values = [
        rank_pvalue(rank_statistics(*toy(1.0, seed=s, n=500, n_draws=30)), 30, 12)
        for s in range(200)
    ]
    assert kstest(values, "uniform").pvalue > 0.01


def test_rank_counts_draws_below():
    draws = np.arange(24.0).reshape(2, 3, 4)
    assert rank_statistics([3.5, 100.0], draws).tolist() == [4, 12]
    assert rank_statistics([3.5, 11.5], draws, keep=3).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: rank_statistics([1.0], [[1.0], [2.0]]), r"expected truth \[galaxy\]"),
        (lambda: rank_statistics([np.nan], [[1.0, 2.0]]), "finite"),
        (lambda: rank_statistics([1.0], [[1.0, 2.0]], keep=3), "keep 1 to 2"),
        (lambda: rank_pvalue([11], 10, 2), "from 0 to 10"),
        (lambda: rank_pvalue([1, 2], 10, 1), "2 to 11 bins"),
        (lambda: rank_pvalue(np.arange(10), 10, 5), "more galaxies than 10 or fewer bins than 5"),
    ],
)
def test_refuses(ask, words):
    with pytest.raises(ValueError, match=words):
        ask()


def test_ranks_that_depend_on_the_data_are_found():
    truth, draws = toy(1.0, n=3000)
    rng = np.random.default_rng(1)
    features = np.stack([rng.normal(size=3000), rng.normal(size=3000), np.ones(3000)], axis=1)
    assert local_pvalue(rank_statistics(truth, draws), 99, features) > 0.01
    # Too high for some and too low for others; too wide and too narrow: alike all together.
    side = np.sign(features[:, :1])
    middle = draws.mean(axis=1, keepdims=True)
    for wrong in (draws + 0.15 * side, middle + (draws - middle) * (1 + 0.2 * side)):
        ranks = rank_statistics(truth, wrong)
        assert local_pvalue(ranks, 99, features) < 1e-4
    values = [
        local_pvalue(rng.integers(0, 100, 500), 99, rng.normal(size=(500, 8))) for _ in range(200)
    ]
    assert kstest(values, "uniform").pvalue > 0.01
    with pytest.raises(ValueError, match="at least 20 galaxies"):
        local_pvalue([1, 2], 99, features[:2])
    features[7, 0] = np.nan
    with pytest.raises(ValueError, match="finite features"):
        local_pvalue(rank_statistics(truth, draws), 99, features)


def correlated(scale=1.0, n=2000, seed=0):
    """Truths [n, 2] and draws of their posteriors, which are ellipses; `scale` times as wide."""
    rng = np.random.default_rng(seed)
    factor = np.array([[1.0, 0.0], [0.95, 0.3]])
    centre = 3.0 * rng.normal(size=(n, 2))
    truth = centre + rng.normal(size=(n, 2)) @ factor.T
    return truth, centre[:, None] + scale * rng.normal(size=(n, 400, 2)) @ factor.T


def test_expected_coverage_is_the_level_for_right_posteriors_alone():
    level, coverage = expected_coverage(*correlated())
    assert np.abs(coverage - level).max() < 0.03
    level, coverage = expected_coverage(*correlated(0.5))
    assert np.abs(coverage - level).max() > 0.06


def test_expected_coverage_sees_a_wrong_correlation():
    truth, draws = correlated()
    # Each parameter's draws are right, their combination is not.
    flipped = 2 * draws[..., 1:].mean(axis=1, keepdims=True) - draws[..., 1:]
    wrong = np.concatenate([draws[..., :1], flipped], axis=-1)
    ranks = rank_statistics(truth[:, 1], wrong[..., 1], keep=99)
    assert pp_deviation(ranks, 99) < 1.7 / len(truth) ** 0.5
    level, coverage = expected_coverage(truth, wrong)
    level, right = expected_coverage(truth, draws)
    assert np.abs(coverage - level).max() > 2 * np.abs(right - level).max()


def test_pp_deviation_of_a_shift():
    rng = np.random.default_rng(1)
    truth, draws = rng.normal(size=3000), rng.normal(size=(3000, 99))
    assert pp_deviation(rank_statistics(truth, draws), 99) < 1.7 / 3000**0.5
    # A shift of one deviation moves the middle of the curve from a half to Phi(1).
    shifted = pp_deviation(rank_statistics(truth + 1.0, draws), 99)
    assert 0.33 < shifted < 0.43


def test_coverage_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"expected truth \[galaxy, parameter\]"):
        expected_coverage(np.zeros((3, 2)), np.zeros((3, 5, 1)))
    with pytest.raises(ValueError, match="finite"):
        expected_coverage(np.full((3, 2), np.nan), np.zeros((3, 5, 2)))
