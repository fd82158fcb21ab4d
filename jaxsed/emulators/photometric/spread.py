"""How wrong an emulator is at one theta: a small network of ln sigma, trained on its errors.

One standard deviation for the whole box is too large for most galaxies and too small where the
emulator is bad: the tails of the errors are for a good part a mixture of widths. Of a 64-wide
emulator of SDSS ugriz, errors beyond three times the one sigma are 1.0 % of the pairs and beyond
five 0.19 %; beyond those of sigma(theta) they are 0.49 % and 0.007 % (normal: 0.27 % and 6e-5 %).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key
from jaxsed.emulators.photometric.emulator import LN_SPREAD, PhotometricEmulator
from jaxsed.emulators.validation.errors import residuals
from jaxsed.learn import FitSettings, fit
from jaxsed.nets import mlp

SIZES = (32, 32)
"""Nodes of the hidden layers."""

SPREAD = FitSettings(
    optimizer="adam", schedule="cosine", learning_rates=(3e-3, 1e-5), batch_size=500, epochs=40,
    patience=40,
)  # fmt: skip

MIN_PAIRS = 10_000
"""Half of them train the network."""


def train_spread(
    key: Key,
    emulator: PhotometricEmulator,
    features: np.ndarray,
    f10: np.ndarray,
    *,
    settings: FitSettings = SPREAD,
) -> PhotometricEmulator:
    """The emulator with a `sigma(theta)` of its own, if that describes its errors better.

    Half of the pairs train the network, by the likelihood of normal errors; on the others it must
    have a higher likelihood than the one sigma of each band, or the emulator comes back without
    it. The record of the training says by how much.

    Args:
        key: random key of the network and the shuffles.
        emulator: with its errors measured.
        features: [pair, feature] it was not trained on.
        f10: simulated F10 [pair, band] in maggies.
        settings: of the training.

    Raises:
        ValueError: fewer than `MIN_PAIRS`, or shapes that do not fit.
    """
    if len(features) < MIN_PAIRS:
        raise ValueError(f"expected {MIN_PAIRS} pairs or more, got {len(features)}")
    found = residuals(emulator, features, f10)
    sigma = np.asarray(emulator.error_ab.sigma, float)
    mean = np.asarray(emulator.error_ab.mean, float)
    known = np.isfinite(sigma) & (sigma > 0)
    used = found.bright & known
    z = np.where(used, (found.ab - mean) / np.where(known, sigma, 1.0), 0.0).astype(np.float32)
    shift, scale = np.asarray(emulator.feature_shift), np.asarray(emulator.feature_scale)
    x = ((np.asarray(features) - shift) / scale).astype(np.float32)
    half = len(x) // 2
    data = (x[:half], z[:half], used[:half].astype(np.float32))
    key_net, key_fit = jax.random.split(typed_key(key))
    layers = _initial(key_net, x.shape[1], z.shape[1])
    layers, _ = fit(key_fit, layers, _loss, data, settings=settings, progress=False)
    ln_spread = np.concatenate(
        [
            np.asarray(jax.vmap(lambda v: _ln_spread(layers, v))(part))
            for part in np.array_split(x[half:], max(1, half // 5000))
        ]
    )
    own, counted = z[half:] / np.exp(ln_spread), used[half:]
    gain = 0.5 * z[half:] ** 2 - 0.5 * own**2 - ln_spread
    figures: dict[str, float] = {"log_likelihood_gain": float(np.mean(gain[counted]))}
    for words, values in (("", own), ("_of_one_sigma", z[half:])):
        for k in (3, 5):
            figures[f"beyond_{k}{words}"] = float(np.mean(np.abs(values[counted]) > k))
    record = dataclasses.replace(
        emulator.record, training=dict(emulator.record.training) | {"spread": figures}
    )
    helps = figures["log_likelihood_gain"] > 0
    return dataclasses.replace(emulator, spread=layers if helps else None, record=record)


def _initial(key, n_in: int, n_out: int) -> mlp.Layers:
    layers = mlp.init(key, (n_in, *SIZES, n_out))
    w, b = layers[-1]
    return (*layers[:-1], (0.1 * w, b))  # nearly the one sigma


def _ln_spread(layers, x):
    return jnp.clip(mlp.apply(layers, x), -LN_SPREAD, LN_SPREAD)


def _loss(layers, batch, key):
    del key
    x, z, used = batch
    ln_spread = jax.vmap(_ln_spread, in_axes=(None, 0))(layers, x)
    nll = 0.5 * (z * jnp.exp(-ln_spread)) ** 2 + ln_spread
    return jnp.sum(used * nll) / jnp.maximum(jnp.sum(used), 1.0)
