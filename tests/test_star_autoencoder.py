"""Spectra without labels, in a few numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from star_data import quadratic

from jaxsed.learn import FitSettings
from jaxsed.nets import mlp
from jaxsed.stars import autoencoder


def test_the_loss_is_the_evidence_lower_bound():
    """By the expectations of the normal laws, found by a sum over many latent draws."""
    from scipy.stats import norm

    sizes = autoencoder.AutoencoderSettings(hidden=(8,), latent=2)
    weights = autoencoder._init(jax.random.key(0), 60, sizes)
    x = jax.random.normal(jax.random.key(1), (60,))
    weight = jnp.linspace(0.0, 2.0, 60)
    mean, log_variance = (np.asarray(a, float) for a in autoencoder._encode(weights, sizes, x))
    std = np.exp(0.5 * log_variance)
    keys = jax.random.split(jax.random.key(2), 4000)
    loss = jax.jit(jax.vmap(lambda k: autoencoder._bound(weights, sizes, k, x, weight)))(keys)
    z = mean + std * np.random.default_rng(0).normal(size=(4000, 2))
    decode = jax.jit(jax.vmap(lambda z: mlp.apply(weights.decoder, z, autoencoder.ACTIVATION)))
    decoded = decode(jnp.asarray(z, jnp.float32))
    misfit = norm.logpdf(x, decoded, 1.0) - norm.logpdf(0.0)
    divergence = norm.logpdf(z, mean, std) - norm.logpdf(z)
    each = -(np.asarray(weight) ** 2 * misfit).sum(axis=1) + divergence.sum(axis=1)
    error = np.hypot(np.std(each), np.std(loss)) / np.sqrt(4000)
    assert abs(np.mean(loss) - np.mean(each)) < 4 * error
    assert divergence.sum(axis=1).mean() > 10 * error


def test_an_autoencoder_keeps_what_varies(tmp_path):
    """Two numbers make these spectra, and two latent ones give them back."""
    stars = quadratic(3000, noise=0.02)
    schedule = FitSettings(
        optimizer="adam", learning_rates=(3e-3, 5e-4), batch_size=64, epochs=12, patience=40
    )
    sizes = autoencoder.AutoencoderSettings(hidden=(64, 32), filters=(4, 4), fit=schedule)
    found, _ = autoencoder.train_autoencoder(jax.random.key(0), stars, sizes, progress=False)
    unseen = quadratic(200, seed=1, noise=0.02)
    again = jax.jit(jax.vmap(found))(jnp.asarray(unseen.flux))
    chi2 = np.mean(((again - unseen.flux) / unseen.error) ** 2)
    without = np.mean(((found.mean - unseen.flux) / unseen.error) ** 2)
    # One would be the noise alone.
    assert chi2 - 1 < 0.1 * (without - 1), (chi2, without)
    found.save(tmp_path / "model.h5")
    loaded = autoencoder.Autoencoder.load(tmp_path / "model.h5")
    np.testing.assert_array_equal(loaded(unseen.flux[0]), found(unseen.flux[0]))
    holes = unseen.flux[0].copy()
    holes[3] = np.nan
    assert np.isfinite(found(jnp.asarray(holes))).all()
