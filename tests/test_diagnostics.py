"""Which posteriors count as converged: bars, autocorrelation times, importance weights, flags."""

import dataclasses
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from flax import struct

from jaxsed.catalog.flags import Flag, from_diagnostics
from jaxsed.core import diagnostics as core
from jaxsed.core.diagnostics import Diagnostics
from jaxsed.infer.amortised import method as flow_method
from jaxsed.infer.amortised.importance import KHAT_MAX, weighted
from jaxsed.infer.samplers import ensemble, nested
from jaxsed.infer.samplers.base import SamplerRun
from jaxsed.infer.schedule.galaxies import Galaxies
from jaxsed.likelihood import photometry
from jaxsed.problem import Problem

CHAINS, DRAWS = 2, 50


class Toy(NamedTuple):
    """Parameters of the toy problem."""

    a: Any
    b: Any


@struct.dataclass
class Same:
    """Fluxes are the parameters."""

    one: Any

    def __call__(self, theta):
        return jnp.stack([theta.a, theta.b]) * self.one


def toy_problem():
    prior = Toy(dist.Normal(0.0, 1.0), dist.Normal(0.0, 1.0))
    data = photometry(np.zeros(2), np.ones(2), error_floor=0.0)
    return Problem(prior, Same(jnp.asarray(1.0)), data)


# ------------------------------------------------------------ autocorrelation times


def autoregressive(time, length, walkers=32, seed=0):
    """Walkers [draw, walker, 1] whose integrated autocorrelation time is `time`."""
    rng = np.random.default_rng(seed)
    rho = (time - 1) / (time + 1)
    z = np.empty((length, walkers, 1))
    z[0] = rng.normal(size=(walkers, 1))
    for i in range(1, length):
        z[i] = rho * z[i - 1] + np.sqrt(1 - rho**2) * rng.normal(size=(walkers, 1))
    return jnp.asarray(z, float)


@pytest.mark.parametrize("time", [1.0, 5.0, 19.0])
def test_autocorrelation_time_of_long_chains(time):
    assert float(ensemble._autocorrelation_time(autoregressive(time, 10_000))) == pytest.approx(
        time, rel=0.1
    )


@pytest.mark.parametrize("time", [99.0, 399.0, 1999.0])
def test_chains_much_shorter_than_their_autocorrelation_time_are_too_short(time):
    z = autoregressive(time, 300)
    found = ensemble._autocorrelation_time(z)
    assert 50 < float(found) <= 300  # no more can be known
    assert not ensemble._long_enough(found[None], 300)


def test_walkers_that_do_not_move_are_never_long_enough():
    apart = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (1, 32, 2)), (300, 32, 2))
    assert float(ensemble._autocorrelation_time(apart)) == pytest.approx(300, rel=1e-3)
    together = ensemble._autocorrelation_time(jnp.ones((300, 32, 2)))
    assert np.isnan(together)
    assert not ensemble._long_enough(together[None], 10**9)
    # One coordinate or one ensemble that does not move is enough.
    mixed = apart.at[..., 0].set(autoregressive(1.0, 300)[..., 0])
    assert float(ensemble._autocorrelation_time(mixed)) == pytest.approx(300, rel=1e-3)
    assert not ensemble._long_enough(jnp.array([1.0, jnp.nan]), 300)


def test_a_run_must_be_fifty_autocorrelation_times_long():
    assert ensemble._long_enough(jnp.array([5.9, 6.0]), 300)
    assert not ensemble._long_enough(jnp.array([1.0, 6.1]), 300)


@pytest.mark.parametrize("moves", [True, False])
def test_an_ensemble_that_is_stuck_has_no_effective_draws(moves):
    class State(NamedTuple):
        z: Any
        key: Any

    class Kernel:
        def init(self, key, warmup, init_params):
            return State(init_params, key[0])

        def sample(self, state, args, options):
            key, own = jax.random.split(state.key)
            z = jax.random.normal(own, state.z.shape) if moves else state.z
            return State(z, key)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Stand(ensemble.EnsembleSlice):
        def _kernel(self, potential):
            return Kernel()

    method = Stand(chains=2, draws=50, starts=2, walkers=4)
    run = jax.jit(lambda key: method.run(key, toy_problem(), 100))
    assert float(run(jax.random.key(0)).effective) == (np.inf if moves else 0.0)


# ------------------------------------------------------------ the criterion


GOOD: dict[str, Any] = {f.name: 0 for f in dataclasses.fields(Diagnostics)} | {
    "rhat_max": 1.005, "ess_bulk_min": 500.0, "ess_tail_min": 450.0,
}  # fmt: skip


def diagnostics(**changes):
    """Of four galaxies, all good but for the changes of the second one."""
    rows = [Diagnostics(**GOOD | (changes if i == 1 else {})) for i in range(4)]
    return core.stacked(rows)


@pytest.mark.parametrize(
    "change",
    [
        {"rhat_max": 1.0101}, {"rhat_max": 1.5}, {"rhat_max": np.nan}, {"ess_bulk_min": 399.0},
        {"ess_bulk_min": np.nan}, {"ess_tail_min": 399.0}, {"ess_tail_min": np.nan},
    ],
)  # fmt: skip
def test_one_bad_figure_fails_its_galaxy_alone(change):
    assert list(diagnostics(**change).passes()) == [True, False, True, True]
    assert list(core.rows_of(diagnostics(**change), [1, 2]).passes()) == [False, True]


@pytest.mark.parametrize("change", [{"rhat_max": 1.0099}, {"ess_bulk_min": 400.0}])
def test_the_criterion_itself(change):
    assert diagnostics(**change).passes().all()
    assert (core.RHAT_MAX, core.ESS_MIN) == (1.01, 400.0)


def flags_of(**changes):
    fit = {"chi2": 3.0, "n_detected": 5, "finite": True}
    fit |= {name: changes.pop(name) for name in list(changes) if name in fit}
    values = {name: np.array([value]) for name, value in fit.items()}
    one = core.stacked([Diagnostics(**GOOD | changes)])
    return Flag(int(from_diagnostics(one, **values)[0]))


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({}, 0),
        ({"rhat_max": 1.011}, Flag.NOT_CONVERGED),
        ({"rhat_max": np.nan}, Flag.NOT_CONVERGED),
        ({"ess_bulk_min": 399.0}, Flag.NOT_CONVERGED),
        ({"ess_bulk_min": np.nan}, Flag.NOT_CONVERGED),
        ({"ess_tail_min": 399.0}, Flag.NOT_CONVERGED),
        ({"ess_tail_min": np.nan}, Flag.NOT_CONVERGED),
        ({"divergences": 1}, Flag.DIVERGENCES),
        ({"finite": False}, Flag.NUMERICAL_FAILURE),
        ({"chi2": np.nan}, Flag.POOR_FIT),
        # A chi-squared of 5 degrees of freedom is above 25.74 once in 10,000 times, one of 3 above
        # 21.11, one of 1 above 15.14.
        ({"chi2": 25.7}, 0),
        ({"chi2": 25.8}, Flag.POOR_FIT),
        ({"chi2": 21.0, "n_detected": 3}, 0),
        ({"chi2": 21.2, "n_detected": 3}, Flag.POOR_FIT),
        ({"chi2": 15.2, "n_detected": 1}, Flag.POOR_FIT),
        ({"chi2": 0.0, "n_detected": 0}, 0),  # upper limits alone
    ],
)
def test_flags_follow_from_the_diagnostics(change, flag):
    assert flags_of(**change) == flag


# ------------------------------------------------------------ the states of a run


@pytest.fixture
def states(monkeypatch):
    """Three galaxies whose draws are their coordinates, with one derived quantity."""
    problem = toy_problem()
    prior, data = jax.tree.map(
        lambda a: jnp.broadcast_to(jnp.asarray(a), (3, *jnp.shape(a))),
        (problem.prior, problem.data),
    )
    batch = dataclasses.replace(problem, prior=prior, data=data)
    made = Galaxies(
        jax.random.split(jax.random.key(0), 3), batch, derive=None, shape=(CHAINS, DRAWS), slots=4
    )
    made.derived = {}
    monkeypatch.setattr(
        Galaxies, "_describe", lambda self, galaxies, x: (None, x, None, dict(self.derived))
    )
    return made


def runs(states, **options):
    rng = np.random.default_rng(1)
    return [
        SamplerRun(x=rng.normal(size=(2, 2000, 2)), log_density=np.zeros((2, 2000)), **options)
        for _ in range(3)
    ]


def test_independent_draws_converge(states):
    assert states.diagnose(np.arange(3), runs(states), "hmc").all()
    assert [state.diagnostics.method for state in states.states] == ["hmc"] * 3
    assert states.states[0].kept.x.shape == (CHAINS, DRAWS, 2)  # thinned


@pytest.mark.parametrize("cap", [399.0, 0.0, np.nan])
def test_the_cap_of_the_effective_number_counts(states, cap):
    assert not states.diagnose(np.arange(3), runs(states, effective=cap), "hmc").any()
    for state in states.states:  # in what is stored as well
        assert not state.diagnostics.ess_bulk_min > cap
        assert not np.any(state.convergence.ess_tail > cap)
        assert np.isnan(cap) == np.isnan(state.diagnostics.ess_tail_min)


def test_a_run_with_other_chains_is_thinned_to_the_same_shape(states):
    x = np.arange(3 * 8 * 500.0).reshape(3, 8, 500, 1) * np.ones(2)
    many = [SamplerRun(x=one, log_density=one[..., 0]) for one in x]
    states.diagnose(np.arange(3), many, "ensemble_slice")
    kept = states.states[2].kept
    assert kept.x.shape == (CHAINS, DRAWS, 2)
    np.testing.assert_array_equal(kept.x[..., 0], kept.log_density)
    assert np.unique(kept.x[..., 0] // 500).size == 8  # of all chains


def test_a_cap_of_another_galaxy_does_not_count(states):
    some = runs(states)
    some[1] = some[1]._replace(effective=10.0)
    assert list(states.diagnose(np.arange(3), some, "hmc")) == [True, False, True]


def test_a_derived_quantity_that_does_not_mix_fails(states):
    rng = np.random.default_rng(3)
    good = rng.normal(size=(3, 2, 2000))
    slow = good.copy()
    slow[1] += 3 * np.arange(2)[:, None]  # chains apart
    broken = good.copy()
    broken[2, 0, 0] = np.nan
    vector = np.zeros((3, 2, 2000, 4))
    states.derived = {"good": good, "slow": slow, "broken": broken, "vector": vector}
    assert list(states.diagnose(np.arange(3), runs(states), "hmc")) == [True, False, False]
    states.derived = {"good": good, "constant": np.full((3, 2, 2000), 0.3), "again": good}
    assert states.diagnose(np.arange(3), runs(states), "hmc").all()


# ------------------------------------------------------------ weights of a flow's draws


@pytest.mark.parametrize(
    ("khat", "outside", "trusted"),
    [(0.69, 0, True), (0.71, 0, False), (5.0, 0, False), (np.inf, 0, False), (np.nan, 0, False),
     (0.2, 1, False), (0.2, 8, False)],
)  # fmt: skip
def test_weights_are_trusted_below_the_limit_inside_the_support(khat, outside, trusted):
    found = types.SimpleNamespace(
        khat=khat, outside=outside, effective=700.0, x=np.zeros((4, 2)), log_density=np.zeros(4),
        log_evidence=0.0, log_evidence_error=0.0,
    )  # fmt: skip
    run = flow_method._run(found, (2, 2), 1000)
    assert run.effective == (700.0 if trusted else 0.0)
    assert run.x.shape == (2, 2, 2)
    assert KHAT_MAX == 0.7


@struct.dataclass
class Fixed:
    """In place of a flow: the same draws for every galaxy, with these log weights."""

    x: Any
    log_weight: Any

    def sample(self, key, problem, n):
        log_p = jax.vmap(problem.guarded_logdensity)(self.x)
        return self.x, log_p - self.log_weight

    def outside(self, problem):
        return jnp.asarray(0)


WEIGHTED = jax.jit(weighted, static_argnums=(3, 4))


def by_weight(log_weight, keep=400):
    n = len(log_weight)
    x = jnp.asarray(np.c_[np.arange(n) / n, np.zeros(n)], float)
    fixed = Fixed(x, jnp.asarray(log_weight, float))
    return WEIGHTED(jax.random.key(1), toy_problem(), fixed, n, keep)


def test_weights_are_pareto_smoothed():
    """As by arviz, of weights with a heavy tail: the raw ones would have another effect."""
    import arviz

    log_weight = 0.6 * np.random.default_rng(24).exponential(size=2000)
    expected, khat = arviz.psislw(log_weight.copy())
    smooth = np.exp(expected - expected.max())
    smooth /= smooth.sum()
    raw = np.exp(log_weight - log_weight.max())
    raw /= raw.sum()
    found = by_weight(log_weight)
    assert float(found.khat) == pytest.approx(float(khat), abs=0.02)
    assert float(found.effective) == pytest.approx(1 / np.sum(smooth**2), rel=0.05)
    assert abs(np.sum(smooth**2) / np.sum(raw**2) - 1) > 0.5
    # Systematic draws have as many copies as the smoothed weight says, within one.
    place = np.round(np.asarray(found.x[:, 0]) * 2000).astype(int)
    copies = np.bincount(place, minlength=2000)
    assert np.all(np.abs(copies - 400 * smooth) < 1.01)
    assert np.any(np.abs(copies - 400 * raw) > 10)


def test_weights_without_variation_and_with_a_single_large_one():
    even = by_weight(np.zeros(2000))
    assert float(even.effective) == pytest.approx(2000, rel=1e-3)
    assert np.isfinite(np.asarray(even.rough)).all()
    single = by_weight(np.where(np.arange(2000) == 7, 200.0, 0.0))
    assert not (float(single.khat) < KHAT_MAX and float(single.effective) >= 400)
    assert np.unique(np.asarray(single.rough[:, 0])).size > 100  # samplers can start from them


# ------------------------------------------------------------ nested sampling


@pytest.mark.parametrize(("most", "finished"), [(60.0, True), (0.5, False)])
def test_unfinished_nested_sampling_has_no_effective_draws(monkeypatch, most, finished):
    monkeypatch.setattr(nested, "MOST_INFORMATION", most)
    small = nested.NestedSlice(chains=2, draws=50, live_points=50)
    run = jax.jit(lambda key: small.run(key, toy_problem(), 100))
    assert (float(run(jax.random.key(0)).effective) > 0) == finished
