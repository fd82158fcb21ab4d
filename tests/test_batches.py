"""What a galaxy's draws owe to the batch it is in: its random numbers nothing, their rounding some.

Batches of another size are other compiled programs, which round differently; chains amplify such
differences until they are others of the same posterior.
"""

import dataclasses

import jax
import numpy as np
import pytest
from test_amortised import SAMPLER, guess, problems
from test_infer import linear_problem
from toys import method_of

from jaxsed import infer
from jaxsed.infer.schedule import chains as mc
from jaxsed.infer.schedule.kernels import _schedule
from jaxsed.infer.schedule.slots import padded, slots_for
from jaxsed.problem import stack, take

SHORT = method_of("hmc", draws=100, retries=0)
MOVES = mc.Moves(SHORT.kernel, SHORT.proposals, True)


@pytest.fixture(scope="module")
def five():
    generator = np.random.default_rng(0)
    return stack([linear_problem(generator)[0] for _ in range(5)])


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(3), 5)


def fit(keys, problem, rows, method):
    rows = np.array(rows)
    return infer.sample(keys[rows], take(problem, rows), method)


@pytest.mark.slow
def test_the_order_of_a_batch_does_not_matter(five, keys):
    rows = [3, 0, 4]
    first = fit(keys, five, rows, SHORT)
    for order in ([1, 2, 0], [2, 1, 0], [0, 1, 2]):
        again = fit(keys, five, [rows[i] for i in order], SHORT)
        np.testing.assert_array_equal(again.x, first.x[order])
        np.testing.assert_array_equal(again.convergence.rhat, first.convergence.rhat[order])
        np.testing.assert_array_equal(again.log_density, first.log_density[order])


def first_draws(keys, problem, rows):
    """[galaxy, chain, draw, dimension] of the first transitions of galaxies in slots of their own
    number."""
    rows = np.array(rows)
    slots = slots_for((keys, problem), rows, padded(rows.size))
    begun = slots.begin(chains=4, starts=2, dense=True)
    none = np.zeros(rows.size, int)
    _, segment = begun.advance(none, none.astype(bool), _schedule(), MOVES)
    return segment.x[:, :, :5]


def test_random_numbers_are_those_of_the_galaxy(five, keys):
    """Among two others and among three its chains set out on the same way."""
    few = first_draws(keys, five, [0, 1, 2])
    many = first_draws(keys, five, [4, 2, 1, 0])
    for here, there in ((0, 3), (1, 2), (2, 1)):
        np.testing.assert_allclose(many[there], few[here], atol=1e-3)
    # Neighbours with the same data and other keys have draws of their own.
    twins = first_draws(keys, take(five, np.zeros(5, int)), [0, 1, 2])
    np.testing.assert_allclose(twins[0], few[0], atol=1e-3)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(twins[i] - twins[j]).max(axis=-1).min() > 1e-3


@pytest.mark.slow
def test_the_posterior_is_the_same_in_another_batch(five, keys):
    """Within the Monte Carlo error of the means, by the effective number of the draws."""
    settings = dataclasses.replace(SHORT, draws=300, retries=2)
    together = fit(keys, five, [0, 1, 2, 3, 4], settings)
    rows = [4, 2, 0]
    apart = fit(keys, five, rows, settings)
    assert apart.diagnostics.passes().all() and together.diagnostics.passes().all()
    for k, row in enumerate(rows):
        a, b = together.x[row].reshape(-1, 2), apart.x[k].reshape(-1, 2)
        ess = [s.convergence.ess_bulk[i].min() for s, i in ((together, row), (apart, k))]
        error = np.sqrt(a.var(axis=0) / ess[0] + b.var(axis=0) / ess[1])
        assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4 * error)
        np.testing.assert_allclose(a.std(axis=0), b.std(axis=0), rtol=4 / np.sqrt(min(ess)))


@pytest.mark.slow
def test_weights_of_a_flow_are_those_of_the_galaxy():
    problem, mean, *_ = problems(5)
    flow = guess(mean.mean(0), 0.7)
    keys = jax.random.split(jax.random.key(1), 5)

    def weigh(rows):
        rows = np.array(rows)
        method = infer.FlowImportance(flow=flow, sampler=SAMPLER)
        return infer.sample(keys[rows], take(problem, rows), method)

    together, apart = weigh(range(5)), weigh([3])
    found, alone = together.diagnostics, apart.diagnostics
    assert found.method[3] == alone.method[0] == "flow+is"
    for name in ("khat", "importance_ess", "log_evidence"):
        np.testing.assert_allclose(
            getattr(found, name)[3], getattr(alone, name)[0], rtol=5e-3, atol=5e-3
        )
    assert np.mean(np.abs(together.x[3] - apart.x[0]) < 1e-3) > 0.9


@pytest.mark.slow
def test_one_galaxy_and_a_batch_of_one_are_the_same(keys):
    problem, *_ = linear_problem(np.random.default_rng(0))
    alone = infer.sample(keys[0], problem, SHORT)
    batch = infer.sample(keys[:1], stack([problem]), SHORT)
    np.testing.assert_array_equal(alone.x, batch.x[0])
    np.testing.assert_array_equal(alone["a"], batch.theta.a[0])
    assert alone.diagnostics.rhat_max == batch.diagnostics.rhat_max[0]
    assert alone.diagnostics.method == "hmc"
    with pytest.raises(ValueError, match="choose one"):
        batch.to_arviz()
    with pytest.raises(KeyError, match="known are a, b"):
        alone["mass"]
