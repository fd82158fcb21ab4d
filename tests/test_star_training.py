"""What a star network learns from: the loss, missing labels, weight decay."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from star_data import LABELS, PIXELS, SMALL, settings, synthetic, windows

from jaxsed import stars as st
from jaxsed.learn import History, ensemble
from jaxsed.stars import batches, networks, training


def test_the_loss_is_that_of_the_paper():
    """Equations 5 to 7, written out in numpy."""
    generator = np.random.default_rng(0)
    y, yhat, s = generator.normal(size=(3, 4))
    known = np.array([0.1, 0.0, 0.5, 0.2])
    present = np.array([1.0, 1.0, 0.0, 1.0])
    batch = batches.Batch(x=None, y=y, variance=known**2, present=present)
    found = training.loss_of(networks.Outputs(jnp.array(yhat), jnp.array(s), ()), batch)
    total = np.log(known**2 + np.exp(s))
    j = np.where(present > 0, 0.5 * (y - yhat) ** 2 * np.exp(-total) + 0.5 * total, 0.0)
    np.testing.assert_allclose(found, j.mean() * 4 / 3, rtol=1e-5)
    none = batch._replace(present=np.zeros(4))
    assert float(training.loss_of(networks.Outputs(jnp.array(yhat), jnp.array(s), ()), none)) == 0


def test_a_missing_label_teaches_nothing():
    stars = synthetic(20, missing=0.3)
    scaling = batches.scaling_of(stars)
    batch = batches.batch_of(stars, scaling)
    net = networks.init(jax.random.key(1), "bcnn", PIXELS, LABELS, architecture=SMALL)

    def total(y):
        changed = batch._replace(y=y)
        run = jax.vmap(lambda x: networks.run(net, x))(batch.x)
        return jnp.sum(jax.vmap(training.loss_of)(run, changed))

    slope = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(batch.y)))
    assert ((slope == 0) == (batch.present == 0)).all()


def test_elements_do_not_teach_the_parameters_in_a_training():
    """The loss of stars that know magnesium alone has no derivative by the parameters' heads."""
    stars = synthetic(20)
    batch = batches.batch_of(stars, batches.scaling_of(stars))
    batch = batch._replace(present=batch.present * (np.array(LABELS) == "Mg"))
    net = networks.init(jax.random.key(1), "censored", PIXELS, LABELS, windows=windows(),
                        architecture=SMALL)  # fmt: skip
    slope = jax.jit(jax.grad(training._loss(0.0, 0.0)))(net, (batch, None), jax.random.key(2))
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(slope.heads))
    assert (np.asarray(slope.link[0]) != 0).any()
    assert (np.asarray(slope.branches[0].heads.value[0]) != 0).any()


def test_stars_are_standardised():
    """Labels and their variances in units of the scatter; what is missing counts for nothing."""
    stars = synthetic(50, missing=0.2)
    error = np.random.default_rng(1).uniform(0.1, 2.0, stars.labels.shape)
    stars = dataclasses.replace(stars, label_error=error)
    scaling = batches.scaling_of(stars)
    batch = batches.batch_of(stars, scaling)
    known = np.isfinite(stars.labels)
    mean, std = np.nanmean(stars.labels, axis=0), np.nanstd(stars.labels, axis=0)
    y = np.where(known, (stars.labels - mean) / std, 0.0)
    np.testing.assert_allclose(batch.y, y, atol=2e-5)
    np.testing.assert_array_equal(batch.present, known)
    np.testing.assert_allclose(batch.variance, error**2 / std**2, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(batch.x).mean(axis=0), 0.0, atol=1e-5)


def test_a_training_never_sees_the_stars_that_judge_it(monkeypatch):
    """Held-out stars choose the epoch and set the calibration: none is learned from."""
    kept = []

    def fit(key, network, loss, data, *, validation, **rest):
        kept.append((data[0], validation[0]))
        return network, History.of([(0, 1.0, 1.0, 0.1, 1, 1.0)], 1, 1.0, "schedule finished")

    monkeypatch.setattr(ensemble, "fit", fit)
    sizes = dataclasses.replace(SMALL, dropout=0.0)
    stars = synthetic(400)
    found, _ = st.train(
        jax.random.key(0), stars, "bcnn", progress=False,
        settings=dataclasses.replace(settings(), architecture=sizes),
    )  # fmt: skip
    ((learned, held),) = kept
    rows = [{tuple(row) for row in np.asarray(part.y)} for part in (learned, held)]
    assert not rows[0] & rows[1] and len(rows[0] | rows[1]) == 400
    assert len(rows[1]) == 40 and found.record.stars == 360
    np.testing.assert_allclose(np.asarray(learned.x).mean(axis=0), 0.0, atol=1e-5)
    # figures and calibration are those of the stars kept apart
    std = np.asarray(found.scaling.std)
    out = jax.jit(jax.vmap(lambda x: networks.run(found.members[0], x)))(jnp.asarray(held.x))
    gap = std * (np.asarray(out.value) - held.y)
    for j, name in enumerate(LABELS):
        median, scatter = found.record.validation[name]
        assert median == pytest.approx(np.median(gap[:, j]), rel=1e-3)
        assert scatter == pytest.approx(st.robust_scatter(gap[:, j]), rel=1e-3)
    size = np.asarray(found.calibration) * std * np.exp(0.5 * np.asarray(out.log_variance))
    inside = np.mean(np.abs(gap) < np.hypot(size, 1e-3), axis=0)
    np.testing.assert_allclose(inside, 0.683, atol=0.03)


def test_weight_decay_acts():
    """A strong one leaves little of the weights, which a training without would make larger."""
    strong = settings(l2=10.0)
    fast = dataclasses.replace(strong.fit, learning_rates=(3e-2,), epochs=20)
    strong = dataclasses.replace(strong, fit=fast)
    found, _ = st.train(jax.random.key(0), synthetic(200), "bcnn", settings=strong, progress=False)
    first = networks.init(jax.random.key(0), "bcnn", PIXELS, LABELS, architecture=SMALL)
    assert float(found.members[0].l2()) < 0.1 * float(first.l2())


def test_training_needs_labels_that_vary():
    stars = synthetic(40)
    with pytest.raises(ValueError, match="no labels"):
        st.train(jax.random.key(0), st.spectra(stars.wave, stars.flux, stars.error), "bcnn")
    flat = dataclasses.replace(stars, labels=np.ones_like(stars.labels))
    with pytest.raises(ValueError, match="same teff"):
        batches.scaling_of(flat)
