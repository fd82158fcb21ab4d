"""The dense networks that emulators train: their settings, sizes and loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxsed.learn import FitSettings
from jaxsed.nets import mlp

FAST = FitSettings(
    optimizer="soap",
    schedule="cosine",
    learning_rates=(1e-2, 1e-6),
    batch_size=1000,
    epochs=400,
    patience=400,
)
"""In a minute on one core, a quarter of the error of the published settings (`FitSettings()`).

A cosine needs its end to be known: either the epochs, or the time there is, by
`dataclasses.replace(FAST, max_seconds=...)`.
"""


def check_sizes(settings: Any, *names: str) -> None:
    """Raises ValueError unless these fields of the settings are one or more."""
    for name in names:
        if getattr(settings, name) < 1:
            raise ValueError(f"expected {name} >= 1, got {getattr(settings, name)}")


def layer_sizes(settings: Any, n_in: int, n_out: int) -> tuple[int, ...]:
    """Inputs, hidden units of settings with a `width` and `layers`, outputs."""
    return (n_in, *(settings.width,) * (settings.layers - 1), n_out)


def predictions(activation: str) -> Callable[[mlp.Layers, Array], Array]:
    """``predict(layers, x) -> y``: the network on inputs [pair, input], to [pair, output]."""
    return jax.vmap(lambda layers, x: mlp.apply(layers, x, activation), in_axes=(None, 0))


def root(mean_square: Array) -> Array:
    """Square root with a finite gradient at zero."""
    return jnp.sqrt(jnp.maximum(mean_square, 1e-20))
