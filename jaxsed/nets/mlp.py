"""Multilayer perceptron: affine layers with an activation between them, linear at the end.

    x_i = phi(x_{i-1} W_i + b_i)

(Mathews et al. 2023, eq. 3). Written for one input vector; the caller vmaps. The parameters are a
plain tuple of layers, so they are trained, stored and mapped over like any other pytree.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxsed.core.compiled import compiled
from jaxsed.core.types import Key

Layers = tuple[tuple[Array, ...], ...]
"""One (W [in, out], b [out], *activation parameters [out]) per layer; the last has none."""


class Activation(NamedTuple):
    """Elementwise function `apply(a, *parameters)` and its trained per-node parameters.

    `init(key, width)` returns those parameters, each [width]; `gain` is the variance of the
    weights times the number of inputs that keeps the signal's size through the layers.
    """

    apply: Callable[..., Array]
    init: Callable[[Array, int], tuple[Array, ...]]
    gain: float


def _gelu_tanh(a):
    """a/2 (1 + tanh[sqrt(2/pi) (a + 0.044715 a^3)]): Mathews et al. (2023), eq. 6."""
    return jax.nn.gelu(a, approximate=True)


def _speculator(a, alpha, beta):
    """[beta + (1 - beta) sigmoid(alpha a)] a: Alsing et al. (2020), eq. 8."""
    return (beta + (1.0 - beta) * jax.nn.sigmoid(alpha * a)) * a


def _speculator_init(key, width):
    return tuple(jax.random.normal(k, (width,)) for k in jax.random.split(key))


ACTIVATIONS = {
    "gelu_tanh": Activation(_gelu_tanh, lambda key, width: (), gain=2.0),
    "relu": Activation(jax.nn.relu, lambda key, width: (), gain=2.0),
    "speculator": Activation(_speculator, _speculator_init, gain=1.0),
}


def init(key: Key, sizes: Sequence[int], activation: str = "gelu_tanh") -> Layers:
    """Random layers for inputs [sizes[0]] and outputs [sizes[-1]], with the widths in between.

    Weights are normal with variance gain / n_in (He et al. 2015), biases zero.

    Raises:
        ValueError: fewer than two sizes, a size below one, an unknown activation.
    """
    sizes = tuple(int(n) for n in sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"expected two or more positive layer sizes, got {sizes}")
    activation_named(activation)
    return _init(key, sizes, activation)


@partial(jax.jit, static_argnums=(1, 2))
def _init(key: Key, sizes: tuple[int, ...], activation: str) -> Layers:
    act = activation_named(activation)
    layers = []
    for i, (n_in, n_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        key_w, key_act, key = jax.random.split(key, 3)
        last = i == len(sizes) - 2
        scale = ((1.0 if last else act.gain) / n_in) ** 0.5
        w = scale * jax.random.normal(key_w, (n_in, n_out))
        extra = () if last else act.init(key_act, n_out)
        layers.append((w, jnp.zeros_like(w, shape=n_out), *extra))
    return tuple(layers)


@partial(compiled, static_argnames="activation")
def apply(layers: Layers, x: Array, activation: str = "gelu_tanh") -> Array:
    """Output [n_out] of the layers for one input x [n_in]."""
    act = ACTIVATIONS[activation].apply
    for w, b, *parameters in layers[:-1]:
        x = act(x @ w + b, *parameters)
    w, b = layers[-1]
    return x @ w + b


def layer_sizes(layers: Layers) -> tuple[int, ...]:
    """The sizes that `init` was called with."""
    return (layers[0][0].shape[0], *(layer[0].shape[1] for layer in layers))


def activation_named(name: str) -> Activation:
    """The activation of this name; ValueError listing the known ones if there is none."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: choose one of {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def check_layers(layers: Any, activation: str = "gelu_tanh") -> None:
    """ValueError unless `layers` chain together and suit the activation."""
    if not layers:
        raise ValueError("expected one or more layers, got none")
    n_extra = len(activation_named(activation).init(jax.random.key(0), 1))
    n_in = layers[0][0].shape[0] if jnp.ndim(layers[0][0]) == 2 else -1
    for i, layer in enumerate(layers):
        expected = 2 if i == len(layers) - 1 else 2 + n_extra
        if len(layer) != expected:
            raise ValueError(f"layer {i}: expected {expected} arrays, got {len(layer)}")
        w, *rest = layer
        shape = jnp.shape(w)
        if len(shape) != 2 or shape[0] != n_in:
            raise ValueError(f"layer {i}: expected weights [{n_in}, width], got shape {shape}")
        for other in rest:
            if jnp.shape(other) != shape[1:]:
                raise ValueError(
                    f"layer {i}: expected vectors of {shape[1:]}, got shape {jnp.shape(other)}"
                )
        n_in = shape[1]
