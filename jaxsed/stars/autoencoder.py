"""A variational autoencoder (Kingma & Welling 2014): spectra without labels, in a few numbers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core.compiled import compiled
from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key
from jaxsed.io.components import AS_ARRAY, Component, Flat
from jaxsed.io.flat import check_sizes
from jaxsed.learn import FitSettings, History, fit
from jaxsed.nets import cnn1d, mlp
from jaxsed.stars.data import Spectra

ACTIVATION = "gelu_tanh"


@dataclasses.dataclass(frozen=True)
class AutoencoderSettings:
    """Sizes (those of astroNN's) and schedule."""

    latent: int = 2
    filters: tuple[int, int] = (2, 4)
    taps: int = 8
    pool: int = 4
    hidden: tuple[int, ...] = (128, 64)
    """Of the encoder; the decoder has them in reverse."""
    fit: FitSettings = dataclasses.field(
        default_factory=lambda: FitSettings(
            optimizer="adam", learning_rates=(1e-3, 3e-4, 1e-4), batch_size=64, epochs=100,
            patience=8,
        )
    )  # fmt: skip


class Weights(NamedTuple):
    """Of encoder and decoder."""

    convolutions: tuple[cnn1d.Layer, ...]
    encoder: mlp.Layers
    """Gives means and ln variances of the latent numbers."""
    decoder: mlp.Layers


def _like(own: Any, attributes: Any) -> Weights:
    check_sizes(attributes["settings"])
    return _init(jax.random.key(0), len(own.wave), own.settings)


@struct.dataclass
class Autoencoder(Component, kind="star autoencoder", names={"settings/fit": None}):
    """``model(flux) -> flux`` [pixel]: what the latent numbers keep of a spectrum."""

    weights: Annotated[Weights, Flat(_like)]
    mean: Annotated[Array, "pixel"]
    """Of the training."""
    scale: Annotated[Array, ""]
    """The scatter of a pixel about it."""
    settings: AutoencoderSettings = struct.field(pytree_node=False)
    wave: Annotated[tuple[float, ...], AS_ARRAY, "pixel"] = struct.field(pytree_node=False)

    def encode(self, flux: Array) -> tuple[Array, Array]:
        """[latent] means and ln variances of the latent numbers of one spectrum."""
        x = jnp.where(jnp.isnan(flux), 0.0, (flux - self.mean) / self.scale)
        return _encode(self.weights, self.settings, x)

    def decode(self, latent: Array) -> Array:
        """[pixel] flux of latent numbers."""
        return self.mean + self.scale * mlp.apply(self.weights.decoder, latent, ACTIVATION)

    @compiled
    def __call__(self, flux: Array) -> Array:
        """[pixel] the flux that the means of the latent numbers give."""
        return self.decode(self.encode(flux)[0])


def train_autoencoder(
    key: Key,
    stars: Spectra,
    settings: AutoencoderSettings | None = None,
    *,
    progress: bool = True,
) -> tuple[Autoencoder, History]:
    """Train on spectra; labels are not used.

    The loss is minus the evidence lower bound of one spectrum with Gaussian errors,
    1/2 sum_p ((x_p - xhat_p) / sigma_p)^2 + KL(q(z|x) || N(0, 1)), over the number of pixels, with
    one draw of z; unusable pixels do not count.

    Raises ValueError where too few spectra have a usable pixel.
    """
    settings = settings or AutoencoderSettings()
    stars = stars.take(np.flatnonzero(np.isfinite(stars.flux).any(axis=1)))
    seen = np.isfinite(stars.flux)
    mean = np.where(seen, stars.flux, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    gap = np.where(seen, stars.flux - mean, 0.0)
    scale = np.sqrt((gap**2).sum() / max(seen.sum(), 1))
    x = (gap / scale).astype(np.float32)
    weight = np.where(seen, scale / np.where(seen, stars.error, 1.0), 0.0).astype(np.float32)
    key_init, key_fit = jax.random.split(typed_key(key))

    def loss(weights: Weights, batch: tuple[Array, Array], key: Key) -> Array:
        keys = jax.random.split(key, batch[0].shape[0])
        each = jax.vmap(lambda k, x, w: _bound(weights, settings, k, x, w))
        return jnp.mean(each(keys, *batch)) / stars.wave.size

    weights, history = fit(
        key_fit, _init(key_init, stars.wave.size, settings), loss, (x, weight),
        settings=settings.fit, progress=progress,
    )  # fmt: skip
    return Autoencoder(
        weights, jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32), settings,
        tuple(stars.wave.tolist()),
    ), history  # fmt: skip


def _init(key: Key, pixels: int, settings: AutoencoderSettings) -> Weights:
    key_conv, key_in, key_out = jax.random.split(key, 3)
    flat = pixels // settings.pool * settings.filters[1]
    inward = (flat, *settings.hidden, 2 * settings.latent)
    outward = (settings.latent, *settings.hidden[::-1], pixels)
    return Weights(
        cnn1d.init_convolutions(key_conv, settings.filters, settings.taps),
        mlp.init(key_in, inward, ACTIVATION),
        mlp.init(key_out, outward, ACTIVATION),
    )


def _encode(weights: Weights, settings: AutoencoderSettings, x: Array) -> tuple[Array, Array]:
    h = x[:, None]
    for layer in weights.convolutions:
        h = jax.nn.relu(cnn1d.convolve(layer, h))
    h = cnn1d.max_pool(h, settings.pool).ravel()
    mean, log_variance = jnp.split(mlp.apply(weights.encoder, h, ACTIVATION), 2)
    return mean, log_variance


def _bound(
    weights: Weights, settings: AutoencoderSettings, key: Key, x: Array, weight: Array
) -> Array:
    """Minus the evidence lower bound of one standardised spectrum, up to a constant."""
    mean, log_variance = _encode(weights, settings, x)
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    gap = weight * (x - mlp.apply(weights.decoder, z, ACTIVATION))
    divergence = 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance)
    return 0.5 * jnp.sum(gap**2) + divergence
