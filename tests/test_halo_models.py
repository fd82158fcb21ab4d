"""Halo networks put together by hand: ensembles, scatter, what a training keeps apart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from halo_data import EDGES, small_settings, universe, with_fit

from jaxsed import halos as ha
from jaxsed.halos import formation, networks


def rows(batch):
    """What tells one box from another."""
    return [tuple(row) for row in np.asarray(batch.boxes.position[:, :3].reshape(-1, 9))]


@pytest.fixture
def small():
    """Settings of a network that compiles fast."""
    return small_settings()


def test_a_training_never_sees_the_boxes_that_judge_it(monkeypatch, small):
    """Held-out boxes choose the epoch and set the calibration: none is learned from."""
    kept = with_fit(monkeypatch)
    seen = universe(240)
    found, _ = ha.train(jax.random.key(0), seen, settings=small, progress=False)
    ((learned, held),) = kept
    assert not set(rows(learned)) & set(rows(held))
    assert len(set(rows(learned)) | set(rows(held))) == 240
    assert len(rows(held)) == 36 and found.record.boxes == 204
    counts = np.concatenate([learned.counts, held.counts])
    np.testing.assert_array_equal(np.sort(counts, 0), np.sort(ha.galaxy_counts(seen, EDGES), 0))
    np.testing.assert_allclose(found.log_mean, np.log(learned.counts.mean(axis=0)), rtol=1e-5)
    # the figures and the calibration are those of the boxes kept apart; an untrained network says
    # the mean numbers
    count, std = jax.jit(jax.vmap(found))(jax.tree.map(jnp.asarray, held.boxes))
    np.testing.assert_allclose(count, np.exp(found.log_mean)[None].repeat(36, 0), rtol=1e-5)
    chi2 = float(ha.chi2(np.asarray(count), held.counts).mean())
    assert found.record.validation["chi2"] == pytest.approx(chi2, rel=1e-4)
    pull = (np.asarray(count) - held.counts) / np.asarray(std)
    np.testing.assert_allclose((pull**2).mean(axis=0), 1.0, rtol=1e-4)


def test_an_ensemble_is_a_mixture_of_its_members(monkeypatch, small):
    """The mean of the means; the mean of the variances, and the variance of the means."""
    key = iter(jax.random.split(jax.random.key(3), 2))

    def shaken(network):
        leaves, tree = jax.tree.flatten(network)
        keys = jax.random.split(next(key), len(leaves))
        noise = [0.1 * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(tree, [a + n for a, n in zip(leaves, noise, strict=True)])

    with_fit(monkeypatch, shaken)
    few = dataclasses.replace(small, members=2)
    both, _ = ha.train(jax.random.key(0), universe(60, forming=True), settings=few, progress=False)
    unseen = universe(4, seed=1)
    found = both.predict(unseen)
    each = [both.replace(members=(member,)).predict(unseen) for member in both.members]
    gap = np.abs(each[0].count - each[1].count)
    assert (gap > 0.3 * each[0].count_std).any()
    np.testing.assert_allclose(found.count, np.mean([e.count for e in each], axis=0), rtol=1e-4)
    own = np.mean([e.count_std**2 for e in each], axis=0)
    np.testing.assert_allclose(
        found.count_std**2, own + np.var([e.count for e in each], axis=0), rtol=1e-3
    )
    # of star formation, the scatter of so many galaxies as the ensemble expects
    share = np.stack([e.formation.quiescent for e in each])
    rate = np.stack([e.formation.log_sfr for e in each])
    scatter = float(both.typical.scatter)
    for name, values, own in (
        ("quiescent", share, share * (1 - share) / np.maximum(found.count, 1.0)),
        ("log_sfr", rate, scatter**2 / np.maximum(found.count * (1 - share), 1.0)),
    ):
        told = getattr(found.formation, name), getattr(found.formation, f"{name}_std")
        np.testing.assert_allclose(told[0], values.mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(told[1] ** 2, own.mean(0) + values.var(0), rtol=1e-3)


def test_the_scatter_of_shares_and_rates_is_that_of_drawn_galaxies():
    """Of boxes with 12 galaxies of a share and rates that are known."""
    usual = formation.Typical(jnp.array([-0.4]), jnp.array([0.3]), jnp.asarray(0.25))
    found = formation.shares(jnp.array([0.9]), jnp.array([0.2]), jnp.array([12.0]), usual)
    draw = np.random.default_rng(0)
    share = 1 / (1 + np.exp(-0.5))
    quiescent = draw.random((40000, 12)) < share
    assert float(found.quiescent[0]) == pytest.approx(share, rel=1e-5)
    assert float(found.quiescent_std[0]) == pytest.approx(quiescent.mean(axis=1).std(), rel=0.02)
    rate = draw.normal(0.5, 0.25, (40000, 12))
    forming = (~quiescent).sum(axis=1)
    told = forming > 0
    mean = (rate * ~quiescent).sum(axis=1)[told] / forming[told]
    assert float(found.log_sfr[0]) == pytest.approx(0.5)
    assert float(found.log_sfr_std[0]) == pytest.approx(mean.std(), rel=0.15)


def test_the_scatter_of_numbers_is_poissons_and_more():
    """A mean of 20 with an excess of 0.09 scatters by sqrt(20 + 36)."""
    from jaxsed.halos.model import expected

    outputs = networks.Outputs(jnp.log(jnp.array([2.0])), jnp.log(jnp.array([0.09])))
    mean, variance = expected(outputs, jnp.log(jnp.array([10.0])))
    assert float(mean[0]) == pytest.approx(20.0, rel=1e-5)
    assert float(variance[0]) == pytest.approx(56.0, rel=1e-5)


def test_halos_below_the_cut_of_the_training_are_left_out_of_predictions(monkeypatch, small):
    """A catalogue that goes to smaller halos than that of the training tells the same."""
    with_fit(monkeypatch)
    seen = universe(60)
    cut = dataclasses.replace(small, v_peak_min=120.0)
    for found in (
        ha.train(jax.random.key(0), seen, settings=cut, progress=False)[0],
        ha.fit_baseline(seen, "ridge", edges=EDGES, v_peak_min=120.0),
    ):
        unseen = universe(4, seed=1)
        deep, shallow = found.predict(unseen), found.predict(unseen.above(120.0))
        np.testing.assert_allclose(deep.count, shallow.count, rtol=1e-5)
        np.testing.assert_array_equal(deep.flag, shallow.flag)
