"""Samplers against targets whose moments are known, and the pieces they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import toys
from flax import struct
from toys import method_of

from jaxsed import infer
from jaxsed.core import linear_algebra
from jaxsed.infer.methods import options_of
from jaxsed.infer.samplers import mixture
from jaxsed.infer.samplers.base import Kernel, Move
from jaxsed.problem import stack

NO_GLOBAL_MOVES = {"proposals": 0, "warmup_proposals": 0}


def linear_problem(rng):
    matrix = np.array([[1.0, 0.5], [0.2, -1.0], [2.0, 1.9]])
    error = np.array([0.5, 0.3, 0.2])
    flux = matrix @ np.array([0.4, -0.6]) + error * rng.normal(size=3)
    scaled = matrix / error[:, None]
    covariance = np.linalg.inv(np.eye(2) + scaled.T @ scaled)
    mean = covariance @ scaled.T @ (flux / error)
    return toys.problem(flux, error, matrix), mean, covariance


def batch(problem, n):
    prior, data = jax.tree.map(
        lambda a: jnp.broadcast_to(jnp.asarray(a), (n, *jnp.shape(a))),
        (problem.prior, problem.data),
    )
    return problem.replace(prior=prior, data=data)


FAST = ("nuts",)
"""Methods whose test is not marked slow: every one compiles a program of its own.  HMC has its
moments tested on the skewed target, and nested sampling where its evidence is."""


@pytest.mark.parametrize(
    "method", [m if m in FAST else pytest.param(m, marks=pytest.mark.slow) for m in infer.METHODS]
)
def test_gaussian_moments_within_five_standard_errors(method):
    problem, mean, covariance = linear_problem(np.random.default_rng(0))
    chosen = method_of(method, **NO_GLOBAL_MOVES, retries=4)
    samples = infer.sample(jax.random.key(1), problem, chosen)
    assert samples.diagnostics.passes()
    assert samples.diagnostics.method == method
    x = samples.x.reshape(-1, 2)
    ess = samples.diagnostics.ess_bulk_min
    assert np.all(np.abs(x.mean(0) - mean) < 5 * np.sqrt(np.diag(covariance) / ess))
    # The standard error of a variance is sqrt(2 / n) of it.
    atol = 5 * np.sqrt(2 / ess) * np.abs(covariance).max()
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=atol)


@pytest.mark.parametrize(
    "method", ["hmc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nuts", "nested"))]
)
def test_skewed_target_moments(method):
    matrix, square = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [0.0, 1.0, 0.0]
    problem = toys.problem([0.0, 1.0, 0.0], [2.0, 0.1, 1.0], matrix, square, kind=(1, 1, 0))
    samples = infer.sample(jax.random.key(2), problem, method_of(method))
    assert samples.diagnostics.passes().all()
    grid = np.linspace(-6, 6, 1501)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    log_p = -0.5 * (a**2 + b**2 + (a / 2.0) ** 2 + ((b + a**2 - 1.0) / 0.1) ** 2)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    truth = np.array([(p * a).sum(), (p * b).sum()])
    spread = np.sqrt([(p * (a - truth[0]) ** 2).sum(), (p * (b - truth[1]) ** 2).sum()])
    found = samples.x.reshape(-1, 2)
    ess = samples.diagnostics.ess_bulk_min
    assert np.all(np.abs(found.mean(0) - truth) < 5 * spread / np.sqrt(ess))
    # With so few live points the widths scatter by 5 % from seed to seed.
    np.testing.assert_allclose(found.std(0), spread, rtol=0.2 if method == "nested" else 0.1)


def test_a_galaxy_does_not_depend_on_its_neighbours():
    generator = np.random.default_rng(0)
    problems = [linear_problem(generator)[0] for _ in range(5)]
    short = method_of("hmc", draws=100, retries=0)
    keys = jax.random.split(jax.random.key(3), 5)
    own = []
    # Batches of one size: another one is compiled anew, and rounds differently.
    for rows in ([0, 1, 2], [3, 1, 4]):
        few = stack([problems[i] for i in rows])
        samples = infer.sample(keys[np.array(rows)], few, short, slots=2)
        own.append(samples.x)
    np.testing.assert_array_equal(own[0][1], own[1][1])
    assert not np.allclose(own[0][0], own[1][0])


def test_more_galaxies_than_slots_are_all_sampled_and_none_twice():
    generator = np.random.default_rng(8)
    problems = [linear_problem(generator)[0] for _ in range(7)]
    seven = stack(problems)
    keys = jax.random.split(jax.random.key(5), 7)
    few = method_of("hmc")
    samples = infer.sample(keys, seven, few, slots=2)
    assert samples.diagnostics.passes().all()
    alone = infer.sample(keys[4], problems[4], few)
    ess = min(r.diagnostics.ess_bulk_min.min() for r in (samples, alone))
    gap = samples.x[4].mean((0, 1)) - alone.x.mean((0, 1))
    assert np.all(np.abs(gap) < 5 * alone.x.std((0, 1)) * np.sqrt(2 / ess))
    assert 0 < samples.slot_efficiency <= 1


def test_samples_of_finished_galaxies_are_those_of_the_end():
    rng = np.random.default_rng(3)
    problem = stack([linear_problem(rng)[0] for _ in range(7)])
    early = {}

    def keep(finished, samples):
        new = np.array([g for g in finished if g not in early][::-1], int)
        if new.size:
            early.update({int(g): (samples(new), i) for i, g in enumerate(new)})

    keys = jax.random.split(jax.random.key(0), 7)
    method = method_of("hmc", draws=100)  # some need a second run
    samples = infer.sample(keys, problem, method, slots=2, keep=keep)
    assert (samples.diagnostics.run > 0).any()
    assert sorted(early) == [int(g) for g in np.flatnonzero(samples.diagnostics.passes())]
    assert len(early) >= 5
    for g, (found, i) in early.items():
        np.testing.assert_array_equal(found.x[i], samples.x[g])
        np.testing.assert_array_equal(found.log_density[i], samples.log_density[g])
        np.testing.assert_allclose(found.theta.a[i], samples.theta.a[g], rtol=1e-6)
        np.testing.assert_allclose(found.flux[i], samples.flux[g], rtol=1e-5)
        for name in ("rhat_max", "method", "run"):
            value, last = (getattr(s.diagnostics, name) for s in (found, samples))
            assert value[i] == last[g]


def _stay(key, state, logdensity, step_size, length):
    return state, Move(jnp.ones(()), jnp.asarray(False), length)


@dataclass(frozen=True, kw_only=True)
class Stuck(infer.HMC):
    """Its chains never move."""

    name: ClassVar[str] = "stuck"

    @property
    def kernel(self):
        return Kernel(_stay, self.target_acceptance)


def test_what_does_not_converge_goes_to_the_fallback_and_says_so():
    problem, *_ = linear_problem(np.random.default_rng(0))
    stuck = Stuck(**NO_GLOBAL_MOVES, draws=500, retries=1, starts=2, warmup_chains=8)
    phases = []
    samples = infer.sample(
        jax.random.key(1), problem, stuck, fallback=("nuts",),
        report=lambda phase, done, left: phases.append(phase),
    )  # fmt: skip
    found = samples.diagnostics
    assert found.method == "nuts"
    assert found.run == 2  # after two of the method that is stuck
    assert found.passes()
    # Its step is its own: that of the method which is stuck grows without bounds.
    assert found.divergences == 0
    assert found.gradients > 0  # those of the first method are counted
    assert phases[-1] == "nuts, 1050 transitions"  # as long as the last run, after one that adapts
    assert samples.x.shape == (4, 500, 2)  # thinned


def test_evidence_and_moments_of_a_gaussian():
    problem, mean, covariance = linear_problem(np.random.default_rng(0))
    samples = infer.sample(jax.random.key(3), problem, infer.NestedSlice(live_points=300))
    found = samples.diagnostics
    # Data N(0, 1 + A A^T) in units of their errors; the likelihood leaves out (2 pi)^(-n/2).
    response = jax.jacobian(lambda x: problem.data.inverse_sigma * problem.evaluate(x).prediction)
    a = np.asarray(jax.jit(response)(jnp.zeros(2)), float)
    total = np.eye(3) + a @ a.T
    d = np.asarray(problem.data.scaled, float)
    truth = -0.5 * d @ np.linalg.solve(total, d) - 0.5 * np.linalg.slogdet(total)[1]
    assert found.log_evidence_error < 0.15
    assert abs(found.log_evidence - truth) < 4 * max(found.log_evidence_error, 0.05)
    assert found.passes()
    x, ess = samples.x.reshape(-1, 2), found.ess_bulk_min
    assert np.all(np.abs(x.mean(0) - mean) < 5 * np.sqrt(np.diag(covariance) / ess))
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=8 * covariance.max() / ess**0.5)


@pytest.mark.parametrize("method", ["hmc", pytest.param("nested", marks=pytest.mark.slow)])
def test_two_modes_get_their_weights(method):
    """|a| is measured, not its sign; the prior prefers one."""
    prior = toys.prior()._replace(a=dist.Normal(0.5, 1.5))
    square = [1.0, 0.0, 0.0]
    problem = toys.problem(
        [4.0, 0, 0], [0.4, 1, 1], np.zeros((3, 2)), square, prior, kind=(1, 0, 0)
    )
    odds = np.exp(2 * 0.5 * 2 / 1.5**2)  # N(2; 0.5, 1.5) over N(-2; 0.5, 1.5)
    samples = infer.sample(jax.random.key(2), problem, method_of(method))
    assert samples.diagnostics.passes().all()
    share = (np.asarray(samples.theta.a) > 0).mean()
    assert share == pytest.approx(odds / (1 + odds), abs=0.06)


def test_derived_quantities_come_back_and_count():
    class Derived(NamedTuple):
        total: Any
        constant: Any

    @struct.dataclass
    class Model:
        def derived(self, theta):
            return Derived(theta.a + theta.b, jnp.zeros_like(theta.a))

    problem, *_ = linear_problem(np.random.default_rng(0))
    samples = infer.sample(jax.random.key(1), problem, method_of("hmc"), derive=Model())
    total = np.asarray(samples.theta.a) + np.asarray(samples.theta.b)
    np.testing.assert_allclose(samples["total"], total, atol=1e-5)
    assert samples.convergence.rhat.shape == (4,)
    assert samples.diagnostics.passes().all()  # what is the same in all draws needs no mixing


def test_impossible_data_is_data_in_the_result_not_an_exception():
    problem, *_ = linear_problem(np.random.default_rng(0))
    two = batch(problem, 2)
    broken = two.data.replace(scaled=two.data.scaled.at[0].set(jnp.nan))
    short = method_of("hmc", draws=600, retries=0)
    keys = jax.random.split(jax.random.key(4), 2)
    samples = infer.sample(keys, two.replace(data=broken), short, slots=2)
    assert list(samples.diagnostics.passes()) == [False, True]


def test_laplace_is_exact_for_a_gaussian():
    problem, mean, covariance = linear_problem(np.random.default_rng(5))
    found = jax.jit(lambda problem: infer.laplace(jax.random.key(0), problem, starts=2))(problem)
    np.testing.assert_allclose(found.mean, mean, atol=1e-4)
    np.testing.assert_allclose(found.scale @ found.scale.T, covariance, rtol=1e-3, atol=1e-5)
    assert np.allclose(np.triu(found.scale, 1), 0.0)


@pytest.mark.slow
def test_pathfinder_of_a_gaussian():
    problem, mean, covariance = linear_problem(np.random.default_rng(5))
    x, log_weight = infer.pathfinder(jax.random.key(0), problem, starts=2)
    np.testing.assert_allclose(x.mean(0), mean, atol=5 * np.sqrt(covariance.max() / 1000))
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.25 * covariance.max())
    assert float(jnp.std(log_weight)) < 0.5


def test_mixture_density_is_normalised_and_agrees_with_its_draws():
    rng = np.random.default_rng(1)
    draws = np.concatenate([rng.normal(-3, 1, (500, 2)), rng.normal(3, 0.5, (500, 2))])
    fitted = jax.jit(mixture.fit)(jax.random.key(0), jnp.asarray(draws, dtype=float))
    assert np.exp(fitted.log_weight).sum() == pytest.approx(1.0, abs=1e-5)
    grid = np.linspace(-25, 25, 501)
    points = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    density = np.exp(jax.jit(jax.vmap(fitted.log_density))(jnp.asarray(points, dtype=float)))
    assert density.sum() * 0.1**2 == pytest.approx(1.0, abs=0.01)
    new = np.asarray(jax.jit(fitted.sample, static_argnums=1)(jax.random.key(1), 100_000))
    assert (new[:, 0] > 0).mean() == pytest.approx(0.5, abs=0.05)
    # The draws are as dense as the density says, component by component and in the tails.
    count, *_ = np.histogram2d(*new.T, bins=[grid[::20] - 0.05] * 2)
    mass = density.reshape(501, 501)[:-1, :-1].reshape(25, 20, 25, 20).sum(axis=(1, 3)) * 0.01
    usual = mass > 20 / len(new)
    pull = (count - len(new) * mass.T) / np.sqrt(len(new) * mass.T + 1)
    assert np.abs(pull[usual.T]).max() < 5


def test_small_factors_against_numpy():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(11, 20))
    a = root @ root.T
    factor = linear_algebra.cholesky(jnp.asarray(a, dtype=float))
    np.testing.assert_allclose(factor, np.linalg.cholesky(a), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(linear_algebra.inverse_lower(factor) @ factor, np.eye(11), atol=1e-4)
    b = rng.normal(size=11)
    np.testing.assert_allclose(
        linear_algebra.solve_positive(jnp.asarray(a, dtype=float), jnp.asarray(b, dtype=float)),
        np.linalg.solve(a, b), rtol=1e-2, atol=1e-3,
    )  # fmt: skip


@pytest.mark.parametrize("correlation", [-0.4, 0.0, 0.6])
def test_convergence_equals_arviz(correlation):
    import arviz

    rng = np.random.default_rng(3)
    draws = rng.standard_t(4, size=(2, 4, 300, 3))
    for t in range(1, 300):
        draws[:, :, t] += correlation * draws[:, :, t - 1]
    stays = rng.random(draws.shape) < 0.2
    draws = np.where(stays, np.roll(draws, 1, axis=2), draws).astype(np.float32)  # rejected
    found = infer.convergence(draws)
    for g in range(2):
        for k in range(3):
            one = draws[g, :, :, k]
            expected = arviz.rhat(one), arviz.ess(one), arviz.ess(one, method="tail")
            np.testing.assert_allclose([a[g, k] for a in found], expected, rtol=1e-5)


def test_convergence_leaves_an_odd_draw_out():
    draws = np.random.default_rng(4).normal(size=(1, 4, 101, 1))
    for odd, even in zip(*map(infer.convergence, (draws, draws[:, :, :100])), strict=True):
        np.testing.assert_array_equal(odd, even)


def test_convergence_of_draws_that_are_no_draws():
    """One that is not a number spoils its quantity alone; what never changes has no effective
    draws; infinite ones have ranks."""
    draws = np.random.default_rng(5).normal(size=(1, 4, 100, 4))
    plain = infer.convergence(draws)
    draws[0, 1, 7, 0] = np.nan
    draws[..., 1] = 3.0
    draws[0, 0, :, 2] = np.inf
    found = infer.convergence(draws)
    assert np.isnan([a[0, 0] for a in found]).all()
    assert np.isnan(found.rhat[0, 1])
    assert found.ess_bulk[0, 1] == found.ess_tail[0, 1] == 0
    assert found.rhat[0, 2] > 1.3 and found.ess_bulk[0, 2] < 10
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_array_equal(a[0, 3], b[0, 3])


def test_numpyro_sees_the_same_posterior():
    from numpyro.infer import MCMC, NUTS
    from numpyro.infer.util import potential_energy

    problem, mean, covariance = linear_problem(np.random.default_rng(6))
    model, potential = infer.numpyro_model(problem), infer.numpyro_potential(problem)
    x = jax.random.normal(jax.random.key(0), (5, 2))
    expected = -jax.jit(jax.vmap(problem.logdensity))(x)
    by_model = jax.vmap(lambda x: potential_energy(model, (), {}, {"x": x}))
    for theirs in (jax.vmap(potential), by_model):
        np.testing.assert_allclose(jax.jit(theirs)(x), expected, rtol=1e-5)
    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=1000, progress_bar=False)
    mcmc.run(jax.random.key(1))
    draws = mcmc.get_samples()
    assert set(draws) >= {"x", "a", "b", "flux"}
    np.testing.assert_array_equal(draws["a"], draws["x"][:, 0])
    gap = np.asarray(draws["x"]).mean(0) - mean
    assert np.all(np.abs(gap) < 5 * np.sqrt(np.diag(covariance) / 200))


def test_a_fallback_by_name_shares_what_was_changed():
    changed = infer.HMC(draws=700, retries=1, proposals=5)
    options = options_of(changed)
    assert options == {"draws": 700, "retries": 1, "proposals": 5}
    assert infer.method_of("nested", **options) == infer.NestedSlice(draws=700, retries=1)
    # The target acceptance of each is its own.
    assert infer.method_of("mclmc", **options_of(infer.HMC())) == infer.MCLMC()
    kept = options_of(infer.HMC(target_acceptance=0.95))
    assert infer.method_of("mclmc", **kept).target_acceptance == 0.95


def test_more_chains_after_the_warm_up_than_in_it():
    with pytest.raises(ValueError, match="at least as many chains in the warm-up"):
        infer.HMC(chains=4, warmup_chains=3)


def test_unknown_method_and_sizes_that_do_not_fit():
    problem, *_ = linear_problem(np.random.default_rng(0))
    with pytest.raises(ValueError, match="unknown method 'gibbs'"):
        infer.sample(jax.random.key(0), problem, "gibbs")
    with pytest.raises(ValueError, match="3 keys for 2 galaxies"):
        infer.sample(jax.random.split(jax.random.key(0), 3), batch(problem, 2))
    with pytest.raises(ValueError, match="at least 2 chains"):
        infer.NestedSlice(chains=1)
