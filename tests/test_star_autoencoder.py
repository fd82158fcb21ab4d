"""Spectra without labels, in a few numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from star_data import quadratic

from jaxsed.learn import FitSettings
from jaxsed.stars import autoencoder


def test_an_autoencoder_keeps_what_varies(tmp_path):
    """Two numbers make these spectra, and two latent ones give them back."""
    stars = quadratic(5000, noise=0.02)
    schedule = FitSettings(
        optimizer="adam", learning_rates=(3e-3, 5e-4), batch_size=64, epochs=25, patience=40
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
    loaded = autoencoder.load(tmp_path / "model.h5")
    np.testing.assert_array_equal(loaded(unseen.flux[0]), found(unseen.flux[0]))
    holes = unseen.flux[0].copy()
    holes[3] = np.nan
    assert np.isfinite(found(jnp.asarray(holes))).all()
