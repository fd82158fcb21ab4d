"""Star formation histories on the age axis, against quadrature by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed.sps.models import provabgs
from jaxsed.sps.populations import sfh

AGES = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 7.0, 10.0, 14.0])


@pytest.fixture
def axis():
    return sfh.age_axis(AGES)


def _by_quadrature(rate, edges, n=4000):
    """Mass per interval and its upper share, by the midpoint rule between sorted edges."""
    cuts = np.union1d(edges, np.concatenate([[0.0], AGES]))
    cuts = cuts[cuts <= edges[-1]]
    t = (cuts[:-1] + np.diff(cuts) * ((np.arange(n) + 0.5) / n)[:, None]).T.ravel()
    dm = rate(t) * np.repeat(np.diff(cuts) / n, n)
    k = np.minimum(np.searchsorted(AGES, t), AGES.size - 1)
    low = np.where(k > 0, AGES[k - 1], AGES[0])
    share = np.where(k > 0, np.log(t / low) / np.log(AGES[k] / np.where(k > 0, low, 1e-9)), 1.0)
    share = np.minimum(share, 1.0)
    mass, upper = np.zeros(AGES.size), np.zeros(AGES.size)
    np.add.at(mass, k, dm)
    np.add.at(upper, k, dm * share)
    return mass, upper


def _check(part, expected, atol=2e-6):
    np.testing.assert_allclose(part.mass, expected[0], rtol=2e-5, atol=atol)
    np.testing.assert_allclose(part.upper, expected[1], rtol=2e-4, atol=atol)


def test_piecewise_constant_is_exact(axis):
    edges = np.array([0.0, 0.02, 0.1, 0.9, 3.3, 12.0])
    rate = np.array([3.0, 0.5, 1.2, 0.0, 0.4])
    part = sfh.piecewise_constant(jnp.asarray(rate), jnp.asarray(edges), axis)
    bins = lambda t: rate[np.minimum(np.searchsorted(edges, t) - 1, rate.size - 1)]  # noqa: E731
    _check(part, _by_quadrature(bins, edges))
    np.testing.assert_allclose(part.mass.sum(), rate @ np.diff(edges), rtol=1e-5)


def test_time_beyond_the_last_node_counts_towards_it(axis):
    edges = jnp.array([0.0, 13.0, 20.0])
    part = sfh.piecewise_constant(jnp.array([0.0, 1.0]), edges, axis)
    np.testing.assert_allclose(sfh.node_mass(part)[-1], 7.0, rtol=0.05)
    np.testing.assert_allclose(part.mass.sum(), 7.0, rtol=1e-6)


def test_burst_is_a_truncated_lognormal(axis):
    time, width, t_age = 0.4, 0.3, 0.6
    part = sfh.burst(jnp.log(time), width, jnp.asarray(t_age), axis)
    t = np.exp(np.linspace(np.log(1e-4), np.log(t_age), 400_001))
    t = 0.5 * (t[1:] + t[:-1])
    dm = np.exp(-0.5 * (np.log(t / time) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    dm *= np.log(t_age / 1e-4) / 400_000
    k = np.searchsorted(AGES, t)
    share = np.log(t / AGES[k - 1]) / np.log(AGES[k] / AGES[k - 1])
    mass = np.bincount(k, dm, AGES.size)
    _check(part, (mass, np.bincount(k, dm * share, AGES.size)))
    assert 0.8 < float(part.mass.sum()) < 0.95  # the rest would precede the galaxy


def test_burst_and_its_gradients_are_finite_and_physical(axis):
    time, t_age = np.meshgrid([1e-4, 0.01, 0.0999, 1.0, 13.27, 50.0], [0.01, 0.5, 13.7])
    time, t_age = jnp.asarray(time.ravel()), jnp.asarray(t_age.ravel())

    def light(ln_time, t_age):
        part = sfh.burst(ln_time, 0.35, t_age, axis)
        return sfh.node_mass(part) @ axis.age**-0.8, part

    both = jax.value_and_grad(light, argnums=(0, 1), has_aux=True)
    (_, part), gradient = jax.jit(jax.vmap(both))(jnp.log(time), t_age)
    mass, upper = np.asarray(part.mass), np.asarray(part.upper)
    assert np.all(upper >= 0) and np.all(upper <= mass + 1e-9)
    assert np.all(mass.sum(1) >= 0) and np.all(mass.sum(1) <= 1 + 1e-6)
    assert np.all(np.isfinite(gradient))


def test_split_shares_the_node_between_young_and_old(axis):
    part = sfh.piecewise_constant(jnp.array([2.0, 1.0]), jnp.array([0.0, 0.2, 12.0]), axis)
    node = 4
    young, old = sfh.split_at(part, node)
    # Each is the history cut at the node, on that side of it.
    ends = jnp.array([0.0, float(AGES[node])])
    alone = sfh.node_mass(sfh.piecewise_constant(jnp.array([2.0]), ends, axis))
    np.testing.assert_allclose(young, alone[: node + 1], rtol=1e-4)
    np.testing.assert_allclose(old, (sfh.node_mass(part) - alone)[node:], rtol=1e-3, atol=1e-5)
    assert young.shape == (node + 1,) and old.shape == (AGES.size - node,)
    np.testing.assert_allclose(young.sum(), 2 * AGES[node], rtol=1e-5)
    whole = np.concatenate([young[:-1], young[-1:] + old[:1], old[1:]])
    np.testing.assert_allclose(whole, sfh.node_mass(part), rtol=1e-5, atol=1e-7)


def test_basis_history_is_exact_at_the_nodes_and_c1_between(axis, x64):
    axis = sfh.age_axis(AGES)
    time = np.linspace(0.0, 14.0, 30)
    basis = np.stack([np.exp(-time / 3), time * np.exp(-time)])
    history = sfh.basis_history(time, basis, axis)
    for t_age in AGES[[4, 7, 10]]:
        part = history(jnp.asarray(t_age))
        for b in range(2):
            expected = _by_quadrature(
                lambda t, b=b: np.interp(t, time, basis[b]), np.array([0.0, t_age])
            )
            np.testing.assert_allclose(part.mass[b], expected[0], rtol=5e-4, atol=1e-9)
            np.testing.assert_allclose(part.upper[b], expected[1], rtol=5e-4, atol=1e-9)
    # Value and slope have no jump where the galaxy's age crosses a node.
    rate = jax.jit(jax.vmap(jax.jacfwd(lambda t: history(t).mass.sum(1))))

    def at_nodes(t):
        return jax.vmap(sfh.node_mass)(history(t))

    mass = jax.jit(jax.vmap(jax.jacfwd(at_nodes)))
    for node in AGES[3:-1]:
        ends = jnp.asarray(node) + jnp.array([-1e-9, 1e-9])
        for slope in (rate(ends), mass(ends)):
            np.testing.assert_allclose(slope[0], slope[1], rtol=1e-5, atol=1e-6)
        expected = [np.interp(node, time, b) for b in basis]
        np.testing.assert_allclose(rate(ends)[0], expected, rtol=1e-5, atol=1e-6)


def test_cut_basis_history_stays_close_to_the_exact_integral():
    time, bases, _ = provabgs.read_bases()
    ages = np.geomspace(0.001, 14.0, 60)
    history = sfh.basis_history(time, bases, sfh.age_axis(ages))
    for t_age in (0.7, 2.3, 5.9, 12.1):
        t = np.linspace(0, t_age, 200_001)
        exact = [np.trapezoid(np.interp(t, time, b), t) for b in bases]
        # Between nodes a cubic stands for the tabulated history.
        np.testing.assert_allclose(history(jnp.asarray(t_age)).mass.sum(1), exact, rtol=1e-2)


@pytest.mark.parametrize("ages", [[1.0], [0.0, 1.0], [2.0, 1.0], [[1.0, 2.0]]])
def test_bad_ages(ages):
    with pytest.raises(ValueError, match="increasing array of at least two ages"):
        sfh.age_axis(np.array(ages))
