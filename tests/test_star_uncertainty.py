"""Uncertainties of a star network: ensembles, a Laplace layer, calibration."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from star_data import LABELS, PIXELS, SMALL, settings, synthetic, trained_network

from jaxsed import stars as st
from jaxsed.stars import batches, model, networks, prediction
from jaxsed.stars import record as parts


@pytest.fixture(scope="module")
def trained():
    return trained_network()


def test_a_laplace_layer_stands_in_for_dropout(trained):
    """Put on a trained network, it predicts without masks: no draws, and no key that matters."""
    held, unseen = synthetic(400, seed=2), synthetic(400, seed=1)
    found = st.with_laplace(trained, synthetic(700, missing=0.1), held)
    labels = found.predict(jax.random.key(1), unseen)
    again = found.predict(jax.random.key(2), unseen, draws=3)
    np.testing.assert_array_equal(labels.value, again.value)
    np.testing.assert_array_equal(labels.std, again.std)
    plain = jax.jit(jax.vmap(trained))(jnp.asarray(unseen.flux))
    np.testing.assert_allclose(labels.value, plain, rtol=1e-5, atol=1e-5)
    assert (labels.std_model > 0).all()
    assert trained.laplace is None
    inside, _ = st.coverage(labels.value, labels.std, unseen.labels)
    assert (np.abs(inside - 0.683) < 0.09).all(), inside


def test_the_last_layer_is_less_certain_of_what_is_far(trained):
    found = st.with_laplace(trained, synthetic(700, missing=0.1), synthetic(60, seed=2))
    unseen = synthetic(100, seed=1)
    far = dataclasses.replace(unseen, flux=1 + 4 * (unseen.flux - 1))
    near, away = (found.predict(jax.random.key(1), s).std_model for s in (unseen, far))
    assert (np.median(away, axis=0) > 1.5 * np.median(near, axis=0)).all()


def test_members_without_dropout_differ_by_their_weights(tmp_path):
    few = settings(members=2, laplace=True)
    few = dataclasses.replace(few, fit=dataclasses.replace(few.fit, epochs=10))
    found, histories = st.train(
        jax.random.key(0), synthetic(300), "bcnn", settings=few, progress=False
    )
    assert len(histories) == 2
    unseen = synthetic(40, seed=1)
    both = found.predict(jax.random.key(1), unseen)
    two = [
        dataclasses.replace(found, members=(m,), laplace=(c,)).predict(jax.random.key(1), unseen)
        for m, c in zip(found.members, found.laplace, strict=True)
    ]
    values = np.stack([t.value for t in two])
    np.testing.assert_allclose(both.value, values.mean(axis=0), rtol=1e-5, atol=1e-5)
    # The spread between the members and what each says of itself, in quadrature.
    own = np.mean([t.std_model**2 for t in two], axis=0)
    np.testing.assert_allclose(both.std_model**2, values.var(axis=0) + own, rtol=1e-3)
    without = dataclasses.replace(found, laplace=None).predict(jax.random.key(1), unseen, draws=0)
    np.testing.assert_allclose(without.std_model, values.std(axis=0), rtol=1e-3)
    found.save(tmp_path / "model.h5")
    again = st.StarModel.load(tmp_path / "model.h5").predict(jax.random.key(1), unseen)
    np.testing.assert_array_equal(again.std, both.std)


def test_calibration_is_that_of_the_prediction_asked_for(trained):
    """Without dropout the network says less uncertainty, and its own factors mend that."""
    held, unseen = synthetic(400, seed=2), synthetic(400, seed=1)
    found = st.calibrated(trained, jax.random.key(0), held, draws=0)
    labels = found.predict(jax.random.key(1), unseen, draws=0)
    inside, _ = st.coverage(labels.value, labels.std, unseen.labels)
    assert (np.abs(inside - 0.683) < 0.09).all(), inside
    # The factors do not pile up on those of before.
    again = st.calibrated(found, jax.random.key(0), held, draws=0)
    np.testing.assert_allclose(again.calibration, found.calibration, rtol=1e-6)


def test_noise_of_the_flux_is_not_counted_twice(trained):
    """With the flux errors propagated or not, the uncertainties are right on average."""
    held, unseen = synthetic(800, seed=2), synthetic(800, seed=1)
    found = st.calibrated(trained, jax.random.key(0), held, draws=0)
    assert (np.asarray(found.calibration_flux) < np.asarray(found.calibration)).all()
    for flux_errors in (False, True):
        labels = found.predict(jax.random.key(1), unseen, draws=0, flux_errors=flux_errors)
        inside, _ = st.coverage(labels.value, labels.std, unseen.labels)
        assert (np.abs(inside - 0.683) < 0.07).all(), inside


def test_errors_of_the_labels_do_not_count_as_the_networks(trained):
    """Known labels with errors of half of the network's own give the factors of exact labels."""
    held = synthetic(1500, seed=2)
    exact = st.calibrated(trained, jax.random.key(0), held, draws=10)
    std = exact.predict(jax.random.key(0), held, draws=10).std
    error = np.broadcast_to(0.5 * np.median(std, axis=0), std.shape)
    noise = error * np.random.default_rng(0).normal(size=error.shape)
    noisy = dataclasses.replace(held, labels=held.labels + noise, label_error=error)
    found = st.calibrated(trained, jax.random.key(0), noisy, draws=10)
    np.testing.assert_allclose(found.calibration, exact.calibration, rtol=0.12)


def test_one_star_in_a_thousand_of_the_training_is_beyond_its_reach():
    """And a star that lies in a direction that none of the training took is far."""
    stars = synthetic(2000)
    scaling = batches.scaling_of(stars)
    net = networks.init(jax.random.key(1), "bcnn", PIXELS, LABELS, architecture=SMALL)
    reach = prediction.reach_of(net, scaling, stars.flux)

    def features(flux):
        return networks.run(net, scaling.inputs(flux)).last[0]

    away = jax.jit(jax.vmap(lambda f: reach.distance(features(f))))(jnp.asarray(stars.flux))
    assert 1 <= (np.asarray(away) > 1).sum() <= 3
    h = np.asarray(jax.vmap(features)(jnp.asarray(stars.flux)), float)
    gap = h - h.mean(axis=0)
    cov = np.cov(h.T)
    floor = 1e-3 * np.trace(cov) / len(cov)
    values, vectors = np.linalg.eigh(cov)
    mahalanobis = np.sqrt(((gap @ vectors) ** 2 / np.maximum(values, floor)).sum(axis=1))
    expected = mahalanobis / np.quantile(mahalanobis, 0.999)
    np.testing.assert_allclose(away, expected, rtol=2e-2, atol=1e-3)


def test_a_laplace_layer_needs_the_labels_of_the_training(trained):
    stars = synthetic(40)
    bare = st.spectra(stars.wave, stars.flux, stars.error)
    with pytest.raises(ValueError, match="model's labels teff, logg, fe, Mg, Al, got none"):
        st.with_laplace(trained, bare, stars)
    other = dataclasses.replace(stars, names=("teff", "logg", "fe", "Al", "Mg"))
    with pytest.raises(ValueError, match="got teff, logg, fe, Al, Mg"):
        st.with_laplace(trained, stars, other)
    with pytest.raises(ValueError, match="59 pixels"):
        st.with_laplace(trained, st.spectra(stars.wave[1:], stars.flux[:, 1:], stars.error[:, 1:]),
                        stars)  # fmt: skip


def test_the_laplace_covariance_is_that_of_linear_regression():
    """Of a linear layer with known variances, the Bayesian posterior in closed form."""
    stars = synthetic(40, missing=0.2)
    scaling = batches.scaling_of(stars)
    batch = batches.batch_of(stars, scaling)
    net = networks.init(jax.random.key(1), "bcnn", PIXELS, LABELS, architecture=SMALL)
    record = parts.Record("bcnn", LABELS, tuple(stars.wave), 40, (), (), 0)
    found = model.StarModel((net,), scaling, prediction.reach_of(net, scaling, stars.flux),
                            jnp.ones(5), jnp.ones(5), None, record)  # fmt: skip
    covariance = st.with_laplace(found, stars, stars).laplace[0][2]
    a = np.stack([np.append(networks.run(net, x).last[2], 1.0) for x in batch.x])
    out = [networks.run(net, x).log_variance[2] for x in batch.x]
    weight = batch.present[:, 2] / (np.exp(out) + batch.variance[:, 2])
    expected = np.linalg.inv((a.T * weight) @ a + np.eye(a.shape[1]))
    np.testing.assert_allclose(covariance, expected, rtol=1e-3, atol=1e-6)
