"""Labels of a batch of spectra in one compiled call: dropout, ensembles, a Laplace layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key, Numbers
from jaxsed.learn.batches import in_batches
from jaxsed.learn.distance import mahalanobis
from jaxsed.stars.networks import Network, Outputs
from jaxsed.stars.record import Reach, Scaling

if TYPE_CHECKING:
    from jaxsed.stars.model import StarModel

BATCH = 256
"""Spectra in a compiled call."""


class Found(NamedTuple):
    """[star, label] values and variances in the labels' units, and [star] distances."""

    value: Array
    model: Array
    predictive: Array
    distance: Array


def draw_masks(key: Key, members: tuple[Network, ...], draws: int) -> Any:
    """Masks of each draw of each member; None without draws or where a network has no dropout."""
    key = typed_key(key)
    if draws == 0:
        return (None,) * len(members)
    keys = jax.random.split(key, len(members))
    return tuple(
        _masks_of(member, jax.random.split(k, draws))
        for member, k in zip(members, keys, strict=True)
    )


@jax.jit
def _masks_of(member: Network, keys: Key) -> Any:
    return jax.vmap(member.masks)(keys)


@jax.jit
def predict_batch(model: StarModel, flux: Array, masks: Numbers) -> Found:
    """Of spectra [star, pixel], with the masks of `draw_masks`."""
    x = jax.vmap(model.scaling.inputs)(flux)
    means, within, variances = [], [], []
    for i, (member, mask) in enumerate(zip(model.members, masks, strict=True)):
        first = jax.vmap(member.first)(x)
        if mask is not None:
            value, spread, variance = _averaged(member, first, mask)
        else:
            value, log_variance, last = jax.vmap(lambda s, m=member: m.rest(s, None))(first)
            spread, variance = jnp.zeros_like(value), jnp.exp(log_variance)
            if model.laplace is not None:
                spread = _laplace_variance(last, model.laplace[i])
        means.append(value)
        within.append(spread)
        variances.append(variance)
    mean = jnp.mean(jnp.stack(means), axis=0)
    spread = jnp.mean(jnp.stack(within), axis=0) + jnp.var(jnp.stack(means), axis=0)
    scale = model.scaling.std**2
    head = jax.vmap(lambda x: _features(model.members[0], x))(x)
    return Found(
        model.scaling.mean + model.scaling.std * mean,
        scale * spread,
        scale * jnp.mean(jnp.stack(variances), axis=0),
        jax.vmap(model.reach.distance)(head),
    )


def _averaged(member: Network, first: Any, masks: Numbers) -> tuple[Array, Array, Array]:
    """Over draws: the mean of the values, their variance, the mean of the predictive variances;
    the latter two make the variance of the mixture of the draws' Gaussians."""

    def add(total: Any, mask: Numbers) -> tuple[Any, None]:
        found = jax.vmap(lambda s: member.rest(s, mask))(first)
        new = (found.value - begin, (found.value - begin) ** 2, jnp.exp(found.log_variance))
        return tuple(a + b for a, b in zip(total, new, strict=True)), None

    # Squares of differences from a first guess do not lose the variance in 32 bits.
    guess: Outputs = jax.vmap(lambda s: member.rest(s, None))(first)
    begin = guess.value
    n = jax.tree.leaves(masks)[0].shape[0]
    total, _ = jax.lax.scan(add, (jnp.zeros_like(begin),) * 3, masks)
    mean, square, variance = (a / n for a in total)
    return begin + mean, jnp.maximum(square - mean**2, 0.0), variance


def _laplace_variance(last: tuple[Array, ...], covariances: tuple[Array, ...]) -> Array:
    """[star, label] variance of the values by that of the last layer's weights."""
    out = [
        jnp.einsum("si,ij,sj->s", with_bias(a), c, with_bias(a))
        for a, c in zip(last, covariances, strict=True)
    ]
    return jnp.stack(out, axis=1)


def with_bias(a: Array) -> Array:
    """[.., input + 1] a layer's inputs and a one for its bias."""
    return jnp.concatenate([a, jnp.ones_like(a[..., :1])], axis=-1)


def _features(member: Network, x: Array) -> Array:
    """[feature] what the layer before the labels of the whole spectrum sees."""
    return member.rest(member.first(x), None).last[0]


@jax.jit
def flux_variance(model: StarModel, flux: Array, error: Array) -> Array:
    """[star, label] sum over pixels of (derivative times uncertainty) squared."""

    def one(pair: tuple[Array, Array]) -> Array:
        slope = model.jacobian(pair[0])
        return jnp.sum(jnp.where(jnp.isnan(pair[1]), 0.0, slope * pair[1]) ** 2, axis=1)

    return jax.lax.map(one, (flux, error), batch_size=8)


def reach_of(member: Network, scaling: Scaling, flux: np.ndarray) -> Reach:
    """Where the spectra [star, pixel] of a training lie."""
    inputs = jax.jit(jax.vmap(lambda f: _features(member, scaling.inputs(f))))
    size = min(BATCH, len(flux))
    h = in_batches(lambda rows: inputs(jnp.asarray(flux[rows])), len(flux), size).astype(float)
    centre = h.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(h.T)))
    # Directions that no spectrum of the training took count as if a thousandth of the usual.
    floor = 1e-3 * max(values.mean(), 1e-12)
    whiten = vectors.T / np.sqrt(np.maximum(values, floor))[:, None]
    distance = mahalanobis(h, centre, whiten)
    return Reach(
        jnp.asarray(centre, jnp.float32), jnp.asarray(whiten, jnp.float32),
        jnp.asarray(np.quantile(distance, 0.999), jnp.float32),
    )  # fmt: skip
