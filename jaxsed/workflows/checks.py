"""Are the answers right: known-answer tests of an installation, calibration of posteriors.

`self_check` is what ``jaxsed doctor`` runs.  `rank_statistics` and `rank_pvalue` are
simulation-based calibration (Talts et al. 2018, arXiv:1804.06788): if truths come from the prior
and data from the truths, the rank of each truth among its posterior draws is uniform.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.resources import as_file, files
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from numpy.typing import ArrayLike, NDArray

from jaxsed import cosmology, params
from jaxsed.bands.magnitudes import to_arsinh
from jaxsed.core.types import Parameter

MAG_PER_LN = 2.5 / params.LN10
WORST_EMULATOR = 0.05  # mag: about the default error floor of the likelihood
ENOUGH_PER_BIN = 5.0  # expected ranks, for the chi-squared distribution to hold


class Check(NamedTuple):
    """The outcome of one test."""

    name: str
    found: str
    ok: bool


# ------------------------------------------------------------------ known answers


class Gaussian(NamedTuple):
    """Theta of a problem whose posterior is known exactly."""

    a: Parameter
    b: Parameter
    c: Parameter


@struct.dataclass
class LinearBands:
    """``flux = matrix @ theta`` [band]; with Gaussian priors the posterior is Gaussian."""

    matrix: Array

    def __call__(self, theta: Gaussian) -> Array:
        """Fluxes [band]."""
        return self.matrix @ jnp.stack([theta.a, theta.b, theta.c])


# Two directions well measured, one that only the prior holds, all correlated.
MATRIX = np.array([[1.0, 0.5, 0.2], [0.3, 1.0, -0.4], [0.9, 1.1, -0.1], [0.2, -0.6, 0.3]])
PRIOR = np.array([[1.0, 2.0], [-1.0, 0.5], [0.0, 3.0]])  # mean and sigma of a, b, c
FLUX, ERROR = np.array([2.5, -0.5, 1.0, 0.7]), np.array([0.3, 0.5, 0.4, 0.6])


def gaussian_posterior() -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean [3] and covariance [3, 3] of the known posterior, by linear algebra."""
    weight = MATRIX.T / ERROR**2
    covariance = np.linalg.inv(weight @ MATRIX + np.diag(PRIOR[:, 1] ** -2.0))
    mean = covariance @ (weight @ FLUX + PRIOR[:, 0] / PRIOR[:, 1] ** 2)
    return mean, covariance


def check_sampler(method: str = "hmc") -> Check:
    """Draw from a Gaussian posterior and compare means and variances with the exact ones.

    Passes if the chains converge, means are within five standard errors, and standard deviations
    within 15 %.
    """
    from jaxsed import infer
    from jaxsed.likelihood import photometry
    from jaxsed.problem import Problem

    prior = Gaussian(*(params.distribution("normal", mean, sigma) for mean, sigma in PRIOR))
    data = photometry(FLUX, ERROR, error_floor=0.0)
    problem = Problem(prior, LinearBands(jnp.asarray(MATRIX, float)), data)
    # As many chains and proposals in the warm-up as after it: one program serves both.
    chosen = infer.method_of(
        method, warmup_chains=4, warmup=200, warmup_proposals=8, proposals=8, draws=500, retries=0,
        starts=2,
    )  # fmt: skip
    samples = infer.sample(jax.random.key(1), problem, chosen)
    draws = np.stack([np.asarray(value, float).ravel() for value in samples.theta])
    mean, covariance = gaussian_posterior()
    sigma = np.sqrt(np.diag(covariance))
    ess = float(samples.diagnostics.ess_bulk_min)
    off = float(np.max(np.abs(draws.mean(axis=1) - mean) / sigma * np.sqrt(ess)))
    width = float(np.max(np.abs(draws.std(axis=1) / sigma - 1)))
    ok = bool(samples.diagnostics.passes()) and off < 5.0 and width < 0.15
    found = f"means within {off:.1f} standard errors, widths within {100 * width:.0f} %"
    return Check(f"{method} on a Gaussian", found, ok)


# Apparent magnitudes and derived quantities of one galaxy, made once with this package in 64 bit
# on a wavelength grid five times finer (ln_step 0.001) than the default that is tested, with birth
# clouds of 10 Myr.
REFERENCE_BANDS = ("sdss_u0", "sdss_r0", "twomass_Ks")
REFERENCE_REDSHIFT = 0.1
REFERENCE_MAGNITUDES = (19.5239160, 17.6303881, 16.5222491)
REFERENCE_DERIVED = {
    "log_mass_surviving": 10.2809945,
    "log_sfr_100myr": 0.4604956,
    "log_z_mw": 0.0370309,
    "t_age_mw": 5.1113046,
    "a_v": 0.4342945,
}


@jax.jit
def _fluxes_and_derived(model: Any, theta: Any) -> tuple[Any, Any]:
    return model(theta), model.derived(theta)


def check_physics() -> Check:
    """The PROVABGS physics of one galaxy against stored values: 2 mmag and 1e-3 are allowed."""
    from jaxsed.bands.filters import load_filter
    from jaxsed.sps.models.galaxy import galaxy_model
    from jaxsed.sps.models.provabgs import ProvabgsTheta
    from jaxsed.sps.models.registry import family
    from jaxsed.sps.ssp.grid import load_ssp

    theta = ProvabgsTheta(
        log_mass_formed=10.5, beta=jnp.array([0.4, 0.3, 0.2, 0.1]), f_burst=0.05, t_burst=0.5,
        gamma1=0.005, gamma2=0.005, dust1=0.5, dust2=0.4, dust_index=-0.5,
        redshift=REFERENCE_REDSHIFT,
    )  # fmt: skip
    galaxies = family("provabgs")
    model = galaxy_model(
        galaxies.physics, galaxies.name, load_ssp(), [load_filter(n) for n in REFERENCE_BANDS],
        redshift_range=(REFERENCE_REDSHIFT, REFERENCE_REDSHIFT),
    )  # fmt: skip
    flux, derived = _fluxes_and_derived(model, theta)
    magnitudes = -MAG_PER_LN * np.log(np.asarray(flux, float))
    off = float(np.max(np.abs(magnitudes - REFERENCE_MAGNITUDES)))
    # NumPy's maximum, unlike Python's, is not a number where any of them is not
    gap = np.max([abs(float(getattr(derived, k)) - v) for k, v in REFERENCE_DERIVED.items()])
    found = f"stored magnitudes within {1e3 * off:.2f} mmag, derived values within {gap:.0e}"
    return Check("physics", found, off < 2e-3 and gap < 1e-3)


def check_cosmology() -> Check:
    """Ages and luminosity distances against astropy's, to 1e-4."""
    from astropy import cosmology as reference

    z = np.array([0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
    off = []
    for name in ("Planck15", "Planck13", "WMAP9"):
        theirs, ours = getattr(reference, name), getattr(cosmology, name.upper())
        for mine, exact in (
            (cosmology.age, theirs.age(z).value),
            (cosmology.luminosity_distance, theirs.luminosity_distance(z).value),
        ):
            values = jax.jit(jax.vmap(mine, in_axes=(0, None)))(jnp.asarray(z, float), ours)
            off.append(np.abs(np.asarray(values) / exact - 1))
    worst = float(np.max(off))
    return Check("cosmology", f"ages and distances within {worst:.0e} of astropy's", worst < 1e-4)


@jax.jit
def _exact_and_emulated(model: Any, emulator: Any, theta: Any) -> tuple[Any, Any]:
    return to_arsinh(model.shape(theta), emulator.mu_0), emulator.magnitudes(theta)


def check_emulator(path: Any) -> Check:
    """A photometric emulator against the physics at the prior's median, mid of its redshifts.

    Each band must be within four times its measured standard deviation and 2 mmag, and never
    further off than `WORST_EMULATOR`: an emulator with a large stated error does not pass.
    """
    from jaxsed.bands.filters import make_filter
    from jaxsed.emulators import load_emulator
    from jaxsed.sps.models.registry import IGM, family
    from jaxsed.sps.ssp.grid import load_ssp

    emulator = load_emulator(path)
    record = emulator.record
    galaxies = family(record.physics)
    index = emulator.feature_names.index("redshift")
    redshift = 0.5 * float(emulator.box_low[index] + emulator.box_high[index])
    prior = galaxies.prior(redshift)
    theta = jax.jit(params.draw)(prior, jnp.zeros(params.dimension(prior)))
    bands = [
        make_filter(name, curve.wave, curve.trans)
        for name, curve in zip(emulator.band_names, record.curves, strict=True)
    ]
    model = galaxies.model(
        load_ssp(record.ssp), bands,
        redshift_range=(redshift, redshift), cosmology=emulator.cosmology,
        birth_cloud_age=record.birth_cloud_age, igm=record.igm or IGM,
    )  # fmt: skip
    # Arsinh magnitudes, as the emulator learned them: a band below the Lyman limit has no light.
    exact, emulated = _exact_and_emulated(model, emulator, theta)
    off = np.abs(np.asarray(emulated, float) - np.asarray(exact, float))
    allowed = np.minimum(4.0 * np.asarray(emulator.error.sigma) + 2e-3, WORST_EMULATOR)
    found = f"{len(off)} bands within {1e3 * off.max():.1f} mmag of the physics"
    return Check(getattr(path, "name", str(path)), found, bool(np.all(off < allowed)))


def self_check(seconds: float = 10.0) -> list[Check]:
    """Known-answer tests of this installation, quick ones first.

    Each is named with what was found; one that raises has not passed.  After `seconds` no further
    one starts, and those left are listed as not run, which is no failure.
    """
    from jaxsed.emulators import is_photometric

    tests: list[tuple[str, Callable[[], Check]]] = [
        ("cosmology", check_cosmology),
        ("physics", check_physics),
        ("hmc on a Gaussian", check_sampler),
    ]
    with as_file(files("jaxsed") / "weights") as folder:
        for path in filter(is_photometric, sorted(folder.glob("emulator_*.h5"))):
            tests.append((path.name, partial(check_emulator, path)))
        start = time.perf_counter()
        done = []
        for name, test in tests:
            if time.perf_counter() - start > seconds:
                done.append(Check(name, f"not run: over {seconds:g} s", True))
                continue
            try:
                done.append(test())
            except Exception as error:  # whatever is broken, doctor tells of it and goes on
                reason = (str(error).splitlines() or [""])[0]
                done.append(Check(name, f"{type(error).__name__}: {reason}", False))
    return done


# ------------------------------------------------------------------ calibration


def rank_statistics(
    truth: ArrayLike, draws: ArrayLike, *, keep: int | None = None
) -> NDArray[np.int64]:
    """Rank of each truth among its posterior draws: how many of them lie below it, [galaxy].

    Args:
        truth: [galaxy] true values of one continuous quantity.
        draws: [galaxy, draw] or [galaxy, chain, draw] posterior draws of it.
        keep: how many draws to use, evenly spaced over the chains one after another.  Draws that
            follow on each other are alike, which bends the ranks towards the ends: keep no more
            than the effective sample size.

    Raises ValueError for shapes that do not fit, values that are not finite, or too few draws.
    """
    truth, draws = np.asarray(truth, float), np.asarray(draws, float)
    if truth.ndim != 1 or draws.ndim < 2 or len(draws) != len(truth):
        raise ValueError(
            f"expected truth [galaxy] and draws [galaxy, draw], got {truth.shape} and {draws.shape}"
        )
    if not (np.isfinite(truth).all() and np.isfinite(draws).all()):
        raise ValueError("expected finite truths and draws: leave galaxies without a result out")
    flat = draws.reshape(len(draws), -1)
    if keep is not None:
        if not 1 <= keep <= flat.shape[1]:
            raise ValueError(f"expected to keep 1 to {flat.shape[1]} draws, got {keep}")
        flat = flat[:, np.linspace(0, flat.shape[1] - 1, keep).round().astype(int)]
    return (flat < truth[:, None]).sum(axis=1)


def rank_pvalue(ranks: ArrayLike, n_draws: int, bins: int = 20) -> float:
    """Probability that calibrated posteriors give ranks as uneven as these: a chi-squared test.

    Args:
        ranks: [galaxy] from `rank_statistics`.
        n_draws: draws that each was ranked among, so ranks are 0 ... n_draws.
        bins: of the histogram.

    Raises ValueError for ranks out of range, or with fewer than 5 expected in a bin.
    """
    from scipy.stats import chi2

    ranks = np.asarray(ranks)
    if ranks.size == 0 or ranks.min() < 0 or ranks.max() > n_draws:
        raise ValueError(f"expected ranks from 0 to {n_draws}")
    if not 2 <= bins <= n_draws + 1:
        raise ValueError(f"expected 2 to {n_draws + 1} bins for {n_draws} draws, got {bins}")
    values = np.arange(n_draws + 1) * bins // (n_draws + 1)  # the bin of every possible rank
    expected = ranks.size * np.bincount(values, minlength=bins) / (n_draws + 1)
    if expected.min() < ENOUGH_PER_BIN:
        raise ValueError(
            f"expected at least {ENOUGH_PER_BIN:g} ranks in a bin, got {expected.min():.3g}: "
            f"use more galaxies than {ranks.size} or fewer bins than {bins}"
        )
    found = np.bincount(values[ranks], minlength=bins)
    return float(chi2.sf(np.sum((found - expected) ** 2 / expected), bins - 1))


def local_pvalue(ranks: ArrayLike, n_draws: int, features: ArrayLike) -> float:
    """Probability that ranks which do not depend on the data seem to depend on it as much as these.

    Ranks of all galaxies together are uniform also where some posteriors are too low and others too
    high, or some too wide and others too narrow.  Here the rank, and its distance from the middle,
    are regressed on what is known of each galaxy; without a dependence the number of galaxies times
    the explained share of the variance follows chi-squared (Lagrange multipliers).

    Args:
        ranks: [galaxy] from `rank_statistics`.
        n_draws: draws that each was ranked among.
        features: [galaxy, feature] of the data; constant ones do not count.

    Raises ValueError for shapes that do not fit, features that are not finite, or fewer than 10
    galaxies per feature.
    """
    from scipy.stats import chi2

    quantile = (np.asarray(ranks, float) + 0.5) / (n_draws + 1) - 0.5
    x = np.asarray(features, float)
    if x.ndim != 2 or quantile.shape != x.shape[:1]:
        raise ValueError(
            f"expected ranks [galaxy] and features [galaxy, feature], got {quantile.shape} and "
            f"{x.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError("expected finite features: leave galaxies without one out")
    x = x[:, x.std(axis=0) > 0]
    n, k = x.shape
    if n < 10 * k:
        raise ValueError(f"expected at least {10 * k} galaxies for {k} features, got {n}")
    basis, scale, _ = np.linalg.svd((x - x.mean(axis=0)) / x.std(axis=0), full_matrices=False)
    basis = basis[:, scale > 1e-8 * scale.max()]
    y = np.stack([quantile, quantile**2], axis=1)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    explained = np.sum((basis.T @ y) ** 2)
    return float(chi2.sf(explained, 2 * basis.shape[1]))


def pp_deviation(ranks: ArrayLike, n_draws: int) -> float:
    """Largest distance of the p-p curve from the diagonal, for ranks from `rank_statistics`.

    The curve is the share of truths below each quantile of their posteriors; calibrated posteriors
    of n galaxies stay within 1.36 / sqrt(n) in 95 % of the cases.
    """
    quantile = np.sort((np.asarray(ranks) + 0.5) / (n_draws + 1))
    n = quantile.size
    above = np.abs(np.arange(1, n + 1) / n - quantile).max()
    return float(max(above, np.abs(np.arange(n) / n - quantile).max()))


def expected_coverage(
    truth: ArrayLike, draws: ArrayLike, *, seed: int = 0, levels: int = 100
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often credible regions of all parameters together hold the truth (TARP, Lemos+ 2023).

    The regions are balls around a random reference point, in parameters over their spread among
    the truths; ranks of single parameters can be uniform where these are not.

    Args:
        truth: [galaxy, parameter].
        draws: [galaxy, draw, parameter].
        seed: of the reference points, uniform over the range of the truths.
        levels: number of credibility levels.

    Returns:
        Credibility levels [level] and the share of truths within them [level]: the same if the
        posteriors are right.

    Raises ValueError for shapes that do not fit or values that are not finite.
    """
    truth, draws = np.asarray(truth, float), np.asarray(draws, float)
    if truth.ndim != 2 or draws.ndim != 3 or draws.shape[::2] != truth.shape:
        raise ValueError(
            "expected truth [galaxy, parameter] and draws [galaxy, draw, parameter], got "
            f"{truth.shape} and {draws.shape}"
        )
    if not (np.isfinite(truth).all() and np.isfinite(draws).all()):
        raise ValueError("expected finite truths and draws: leave galaxies without a result out")
    low, high = truth.min(axis=0), truth.max(axis=0)
    width = np.maximum(high - low, 1e-12)
    point = np.random.default_rng(seed).uniform(size=truth.shape)
    far = np.sum(((truth - low) / width - point) ** 2, axis=1)
    others = np.sum(((draws - low) / width - point[:, None]) ** 2, axis=2)
    inside = np.mean(others < far[:, None], axis=1)
    level = np.linspace(0.0, 1.0, levels + 1)
    return level, np.searchsorted(np.sort(inside), level, side="right") / inside.size
