"""Labels of spectra by a trained network, hostile spectra among them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from star_data import PIXELS, synthetic, trained_network

from jaxsed import stars as st
from jaxsed.stars import networks, prediction
from jaxsed.stars.data import StarFlag, check_grid


@pytest.fixture(scope="module")
def trained():
    return trained_network()


def test_labels_of_unseen_stars_and_their_uncertainties(trained):
    unseen = synthetic(500, seed=1)
    found = trained.predict(jax.random.key(1), unseen, draws=50)
    spread = np.array([st.robust_scatter(d) for d in (found.value - unseen.labels).T])
    # The labels vary by these; noise alone would allow a tenth to a sixth of them.
    assert (spread < 0.4 * np.array([300, 0.6, 0.3, 0.2, 0.2])).all(), spread
    inside, far = st.coverage(found.value, found.std, unseen.labels)
    assert (np.abs(inside - 0.683) < 0.15).all(), inside
    assert (far > 0.88).all(), far
    assert (found.flag == 0).mean() > 0.95


def test_a_prediction_does_not_depend_on_its_neighbours(trained):
    unseen = synthetic(300, seed=1)
    together = trained.predict(jax.random.key(1), unseen, draws=5)
    alone = trained.predict(jax.random.key(1), unseen.take([280]), draws=5)
    np.testing.assert_allclose(alone.value[0], together.value[280], rtol=2e-5)
    np.testing.assert_allclose(alone.std[0], together.std[280], rtol=2e-3)


def test_the_draws_are_those_of_a_plain_loop(trained):
    """Their mean, and the two parts of the variance of their mixture."""
    unseen = synthetic(3, seed=1)
    found = trained.predict(jax.random.key(1), unseen, draws=7)
    net = trained.members[0]
    masks = prediction.draw_masks(jax.random.key(1), trained.members, 7)[0]
    run = jax.jit(lambda x, mask: networks.run(net, x, mask))
    values, variances = [], []
    for d in range(7):
        mask = jax.tree.map(lambda a, d=d: a[d], masks)
        outs = [run(trained.scaling.inputs(f), mask) for f in unseen.flux]
        values.append([o.value for o in outs])
        variances.append([np.exp(o.log_variance) for o in outs])
    mean, std = np.asarray(trained.scaling.mean), np.asarray(trained.scaling.std)
    np.testing.assert_allclose(found.value, mean + std * np.mean(values, axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.std_model, std * np.std(values, axis=0), rtol=2e-3)
    np.testing.assert_allclose(
        found.std_predictive, std * np.sqrt(np.mean(variances, axis=0)), rtol=1e-3
    )


def test_the_jacobian_is_the_derivative_of_the_prediction(trained):
    """Against differences of predicted labels; where a step crosses a kink of the network, by
    chance, they differ."""
    stars, step = synthetic(15, seed=1), 3e-4
    moved = [s * step * np.eye(PIXELS, dtype=np.float32) for s in (1, -1)]
    flux = np.concatenate([f + m for f in stars.flux for m in moved])
    many = st.spectra(stars.wave, flux, np.full_like(flux, 0.01))
    value = trained.predict(jax.random.key(0), many, draws=0).value
    value = value.reshape(15, 2, PIXELS, 5)
    numeric = np.moveaxis(value[:, 0] - value[:, 1], -1, 1) / (2 * step)
    jacobians = jax.jit(jax.vmap(trained.jacobian))
    found = np.asarray(jacobians(jnp.asarray(stars.flux)))
    error = np.linalg.norm(found - numeric, axis=-1) / np.linalg.norm(numeric, axis=-1)
    assert (np.median(error, axis=0) < 0.01).all(), np.median(error, axis=0)
    holes = stars.flux.copy()
    holes[0, [3, 42]] = np.nan
    slope = np.asarray(jacobians(jnp.asarray(holes)))[0]
    assert (slope[:, [3, 42]] == 0).all() and np.isfinite(slope).all()


def test_flux_errors_are_propagated_to_first_order(trained):
    star = synthetic(1, seed=1)
    found = trained.predict(jax.random.key(1), star, flux_errors=True)
    moved = star.flux + 1e-2 * np.random.default_rng(0).normal(size=(4000, PIXELS))
    labels = jax.jit(jax.vmap(trained))(jnp.asarray(moved, jnp.float32))
    np.testing.assert_allclose(found.std_flux[0], np.std(labels, axis=0), rtol=0.3)
    assert (trained.predict(jax.random.key(1), star).std_flux == 0).all()
    # What is known of the flux is not the network's to calibrate.
    own = np.asarray(trained.calibration_flux) * np.hypot(found.std_model, found.std_predictive)
    np.testing.assert_allclose(found.std, np.hypot(own, found.std_flux), rtol=1e-4)


def test_spectra_unlike_the_training_are_flagged(trained):
    odd = synthetic(50, seed=1)
    odd = dataclasses.replace(odd, flux=odd.flux + np.linspace(-0.8, 0.8, PIXELS, dtype=np.float32))
    found = trained.predict(jax.random.key(1), odd)
    assert (found.flag & int(StarFlag.OUTSIDE_TRAINING)).astype(bool).mean() > 0.9
    assert (found.distance > 1).mean() > 0.9


def test_without_draws_there_is_no_dropout(trained):
    unseen = synthetic(20, seed=1)
    found = trained.predict(jax.random.key(1), unseen, draws=0)
    plain = jax.jit(jax.vmap(trained))(jnp.asarray(unseen.flux))
    np.testing.assert_allclose(found.value, plain, rtol=1e-5, atol=1e-5)
    assert (found.std_model == 0).all() and (found.std_predictive > 0).all()
    with pytest.raises(ValueError, match="0 or more draws, got -1"):
        trained.predict(jax.random.key(1), unseen, draws=-1)


def test_a_saved_model_is_the_same(trained, tmp_path):
    unseen = synthetic(5, seed=1)
    trained.save(tmp_path / "model.h5")
    again = st.StarModel.load(tmp_path / "model.h5")
    assert again.record == trained.record and len(again.record.trainings) == 1
    for a, b in zip(
        trained.predict(jax.random.key(1), unseen, draws=3),
        again.predict(jax.random.key(1), unseen, draws=3),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert again.record == trained.record
    assert again.record.validation == trained.record.validation


def test_hostile_spectra_are_flagged_and_lose_nothing_else(trained):
    stars = synthetic(6, seed=1)
    flux, error = stars.flux.copy(), stars.error.copy()
    flux[1] = np.nan
    error[2, 3] = -1.0
    error[3, 4] = 0.0
    flux[4, 5] = np.inf
    error[5, : int(0.5 * PIXELS)] = np.inf
    bad = st.spectra(stars.wave, flux, error)
    found = trained.predict(jax.random.key(1), bad, flux_errors=True)
    assert found.flag[0] & ~int(StarFlag.OUTSIDE_TRAINING) == 0
    assert found.flag[1] & int(StarFlag.NO_PIXELS)
    assert np.isnan(found.value[1]).all() and np.isnan(found.std[1]).all()
    assert found.flag[2] & int(StarFlag.BAD_ERRORS) and found.flag[3] & int(StarFlag.BAD_ERRORS)
    assert found.flag[5] & int(StarFlag.MANY_BAD_PIXELS)
    assert np.isfinite(found.value[[0, 2, 3, 4, 5]]).all()
    assert np.isfinite(found.std[[0, 2, 3, 4, 5]]).all()
    clean = trained.predict(jax.random.key(1), stars)
    np.testing.assert_allclose(found.value[0], clean.value[0], rtol=1e-5)


def test_another_grid_is_refused(trained):
    stars = synthetic(2)
    with pytest.raises(ValueError, match="59 pixels, the network was trained with 60"):
        trained.predict(
            jax.random.key(0), st.spectra(stars.wave[1:], stars.flux[:, 1:], stars.error[:, 1:])
        )
    with pytest.raises(ValueError, match="pixels off"):
        check_grid(stars.wave + 4.1, stars.wave)
