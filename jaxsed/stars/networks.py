"""The networks of Leung & Bovy (2018) and StarNet (Fabbro et al. 2018): spectrum in, labels out.

All work in standardised units: pixels less the mean spectrum, labels less their mean and over
their standard deviation.  A *draw* of a Bayesian network is one set of dropout masks: with the
masks given, everything here is deterministic.  `first` is what comes before the masks, so that
many draws share it.  Written for one spectrum; the caller vmaps over spectra, masks, or both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core.compiled import compiled
from jaxsed.core.types import Key, Numbers, PyTree
from jaxsed.nets import cnn1d

PARAMETERS = ("teff", "logg", "fe")
"""What the elements' branches of the censored network are told, in this order."""


class Outputs(NamedTuple):
    """Of one spectrum, in standardised units."""

    value: Array
    """[label]."""
    log_variance: Array
    """[label] ln of the predictive variance."""
    last: tuple[Array, ...]
    """What the linear layer of each label sees, one array per label."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes.  The defaults are those of astroNN's Bayesian network, but for `mask_convolution`."""

    filters: tuple[int, int] = (2, 4)
    taps: int = 8
    pool: int = 4
    dense: tuple[int, int] = (196, 96)
    dropout: float = 0.3
    mask_convolution: bool = False
    """Whether there is dropout between the convolutions as well, as in astroNN.  Without it all
    draws share the convolutions, which are most of the work of a draw."""
    heteroscedastic: bool = True
    """Whether the predictive variance depends on the spectrum; else it is one number per label."""
    scale: float | None = 0.05
    """Standard deviation of the first weights; None: that of He et al. (2015)."""
    branch: tuple[int, int] = (32, 16)
    """Of an element's window in the censored network."""
    wide_branch: tuple[int, int] = (256, 64)
    """Of a window with more than `wide` pixels."""
    wide: int = 1000
    link: int = 2
    """Neurons that tell the branches of the whole spectrum."""
    link_norm: float = 0.5
    """Largest norm of each such neuron's weights."""

    def __post_init__(self) -> None:
        sizes = (*self.filters, *self.dense, *self.branch, *self.wide_branch)
        if min(*sizes, self.taps, self.pool, self.link) < 1:
            raise ValueError(f"expected sizes of one or more, got {self}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"expected 0 <= dropout < 1, got {self.dropout}")


PUBLISHED: dict[str, Architecture] = {
    "bcnn": Architecture(),
    "censored": Architecture(dense=(192, 64)),
    "starnet": Architecture(
        filters=(4, 16), dense=(256, 128), dropout=0.0, heteroscedastic=False, scale=None
    ),
}
"""As published, but for `mask_convolution`, by the name of the network."""


class Trunk(NamedTuple):
    """Weights of the part that sees the whole spectrum."""

    convolutions: tuple[cnn1d.Layer, ...]
    dense: tuple[cnn1d.Layer, ...]


class Heads(NamedTuple):
    """Linear layers [.., label] of the values and of the ln variances."""

    value: cnn1d.Layer
    log_variance: Any
    """A layer, or [label] where the variance is the same for all spectra."""


class Branch(NamedTuple):
    """Weights of one element's branch."""

    dense: tuple[cnn1d.Layer, ...]
    heads: Heads


@struct.dataclass
class Plain:
    """The networks without censoring: a trunk, and a linear head for all labels."""

    trunk: Trunk
    heads: Heads
    pixels: int = struct.field(pytree_node=False)
    architecture: Architecture = struct.field(pytree_node=False)

    def first(self, x: Array) -> Array:
        """What comes before the first mask, for one spectrum [pixel]."""
        return _first(self.trunk, self.architecture, x)

    def masks(self, key: Key) -> Numbers:
        """One draw's masks; see `_masks`."""
        return _masks(key, self._shapes(), self.architecture.dropout)

    def _shapes(self) -> Any:
        return _trunk_shapes(self.trunk, self.architecture, self.pixels)

    def rest(self, seen: Array, masks: Numbers, training: bool = False) -> Outputs:
        """Labels given `first` and masks, or None for none."""
        h = _trunk(self.trunk, self.architecture, seen, masks)
        value, log_variance = _heads(self.heads, h)
        return Outputs(value, log_variance, (h,) * value.shape[0])

    def l2(self) -> Array:
        """Sum of the squares of all weights, biases apart."""
        return _squares((self.trunk, self.heads))


@struct.dataclass
class Censored:
    """The censored network: three parameters from the trunk, every element from its window.

    An element's branch sees its window, `link` linear neurons on the trunk, and the three
    parameters, which it does not teach: no gradient flows back through them in a training.
    """

    trunk: Trunk
    heads: Heads
    """Of the three parameters."""
    link: cnn1d.Layer
    branches: tuple[Branch, ...]
    windows: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)
    """Pixels of each branch."""
    order: tuple[int, ...] = struct.field(pytree_node=False)
    """Place of each label among (the three parameters, the elements)."""
    pixels: int = struct.field(pytree_node=False)
    architecture: Architecture = struct.field(pytree_node=False)

    def first(self, x: Array) -> Any:
        """What comes before the masks: the trunk's first layer, and that of every branch."""
        own = tuple(
            jax.nn.relu(cnn1d.dense(branch.dense[0], x[np.array(pixels)]))
            for branch, pixels in zip(self.branches, self.windows, strict=True)
        )
        return _first(self.trunk, self.architecture, x), own

    def masks(self, key: Key) -> Numbers:
        """One draw's masks; see `_masks`."""
        shapes = (
            _trunk_shapes(self.trunk, self.architecture, self.pixels),
            tuple(tuple(w.shape[1:] for w, _ in branch.dense) for branch in self.branches),
        )
        return _masks(key, shapes, self.architecture.dropout)

    def rest(self, seen: PyTree, masks: Numbers, training: bool = False) -> Outputs:
        """Labels given `first` and masks, or None for none; in a training, derivatives by the
        weights are those of Leung & Bovy (2018), else they are those of the labels."""
        whole, own = seen
        trunk_masks, branch_masks = masks or (None, (None,) * len(self.branches))
        h = _trunk(self.trunk, self.architecture, whole, trunk_masks)
        three, three_log_variance = _heads(self.heads, h)
        w, b = self.link
        norm = jnp.sqrt(jnp.sum(w**2, axis=0) + 1e-12)
        latent = h @ (w * jnp.minimum(1.0, self.architecture.link_norm / norm)) + b
        told = jnp.concatenate([latent, jax.lax.stop_gradient(three) if training else three])
        values, log_variances, last = [three], [three_log_variance], [h] * len(PARAMETERS)
        for branch, a, mask in zip(self.branches, own, branch_masks, strict=True):
            a = _masked(a, mask, 0)
            a = _masked(jax.nn.relu(cnn1d.dense(branch.dense[1], a)), mask, 1)
            a = jnp.concatenate([a, told])
            value, log_variance = _heads(branch.heads, a)
            values.append(value)
            log_variances.append(log_variance)
            last.append(a)
        order = np.array(self.order)
        return Outputs(
            jnp.concatenate(values)[order],
            jnp.concatenate(log_variances)[order],
            tuple(last[i] for i in self.order),
        )

    def l2(self) -> Array:
        """Sum of the squares of all weights, biases apart."""
        return _squares((self.trunk, self.heads, self.link, self.branches))


Network = Plain | Censored


@partial(compiled, static_argnames="training")
def run(network: Network, x: Array, masks: Numbers = None, *, training: bool = False) -> Outputs:
    """Labels of one spectrum [pixel]; in a training the elements' labels do not teach the heads of
    the three parameters."""
    return network.rest(network.first(x), masks, training)


def init(
    key: Key,
    kind: str,
    pixels: int,
    labels: tuple[str, ...],
    *,
    windows: Mapping[str, Array] | None = None,
    architecture: Architecture | None = None,
) -> Network:
    """Random weights.

    Args:
        key: random key.
        kind: "bcnn", "censored" or "starnet".
        pixels: of a spectrum.
        labels: names, in the order of the outputs.
        windows: of the censored network: whether each pixel [pixel] is an element's, by label.
        architecture: sizes; by default as published.

    Raises ValueError for an unknown kind, for fewer pixels than one pool of the convolutions, and
    for a censored network whose labels lack one of `PARAMETERS` or whose element has no window.
    """
    if kind not in PUBLISHED:
        raise ValueError(f"unknown network {kind!r}: choose one of {sorted(PUBLISHED)}")
    sizes = architecture or PUBLISHED[kind]
    if pixels < sizes.pool:
        raise ValueError(f"expected at least {sizes.pool} pixels, got {pixels}")
    key_trunk, key_heads, key_link, key_branches = jax.random.split(key, 4)
    trunk = _init_trunk(key_trunk, pixels, sizes)
    if kind != "censored":
        heads = _init_heads(key_heads, sizes.dense[1], len(labels), sizes)
        return Plain(trunk, heads, pixels, sizes)
    elements, chosen = _windows(labels, pixels, windows or {})
    branches = []
    for k, own in zip(jax.random.split(key_branches, len(elements)), chosen, strict=True):
        first, second = sizes.wide_branch if len(own) > sizes.wide else sizes.branch
        key_a, key_b, key_c = jax.random.split(k, 3)
        layers = (
            cnn1d.init_dense(key_a, len(own), first, sizes.scale),
            cnn1d.init_dense(key_b, first, second, sizes.scale),
        )
        told = second + sizes.link + len(PARAMETERS)
        branches.append(Branch(layers, _init_heads(key_c, told, 1, sizes)))
    return Censored(
        trunk=trunk,
        heads=_init_heads(key_heads, sizes.dense[1], len(PARAMETERS), sizes),
        link=cnn1d.init_dense(key_link, sizes.dense[1], sizes.link, sizes.scale, gain=1.0),
        branches=tuple(branches),
        windows=chosen,
        order=tuple((*PARAMETERS, *elements).index(name) for name in labels),
        pixels=pixels,
        architecture=sizes,
    )


def _windows(
    labels: tuple[str, ...], pixels: int, windows: Mapping[str, Array]
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    missing = [name for name in PARAMETERS if name not in labels]
    if missing:
        raise ValueError(f"the censored network needs the labels {', '.join(missing)}")
    elements = tuple(name for name in labels if name not in PARAMETERS)
    chosen = []
    for name in elements:
        window = np.asarray(windows.get(name, np.zeros(0)))
        if window.shape != (pixels,) or not (window > 0).any():
            raise ValueError(
                f"label {name!r} needs a window of {pixels} pixels with at least one in it, got "
                f"{int((window > 0).sum())} of {window.size}"
            )
        chosen.append(tuple(int(p) for p in np.flatnonzero(window > 0)))
    return elements, tuple(chosen)


def parameter_count(network: Network) -> int:
    """Number of weights and biases."""
    return sum(leaf.size for leaf in jax.tree.leaves(network))


def _init_trunk(key: Key, pixels: int, sizes: Architecture) -> Trunk:
    key_conv, key_a, key_b = jax.random.split(key, 3)
    flat = pixels // sizes.pool * sizes.filters[1]
    return Trunk(
        cnn1d.init_convolutions(key_conv, sizes.filters, sizes.taps, scale=sizes.scale),
        (
            cnn1d.init_dense(key_a, flat, sizes.dense[0], sizes.scale),
            cnn1d.init_dense(key_b, *sizes.dense, sizes.scale),
        ),
    )


def _init_heads(key: Key, inputs: int, labels: int, sizes: Architecture) -> Heads:
    key_value, key_variance = jax.random.split(key)
    return Heads(
        cnn1d.init_dense(key_value, inputs, labels, sizes.scale, gain=1.0),
        cnn1d.init_dense(key_variance, inputs, labels, sizes.scale, gain=1.0)
        if sizes.heteroscedastic
        else jnp.zeros(labels),
    )


def _first(trunk: Trunk, sizes: Architecture, x: Array) -> Array:
    h = jax.nn.relu(cnn1d.convolve(trunk.convolutions[0], x[:, None]))
    return h if sizes.mask_convolution else _second(trunk, sizes, h)


def _second(trunk: Trunk, sizes: Architecture, h: Array) -> Array:
    h = jax.nn.relu(cnn1d.convolve(trunk.convolutions[1], h))
    return cnn1d.max_pool(h, sizes.pool).ravel()


def _trunk(trunk: Trunk, sizes: Architecture, seen: Array, masks: Numbers) -> Array:
    if sizes.mask_convolution:
        seen = _second(trunk, sizes, _masked(seen, masks, 2))
    h = jax.nn.relu(cnn1d.dense(trunk.dense[0], _masked(seen, masks, 0)))
    return jax.nn.relu(cnn1d.dense(trunk.dense[1], _masked(h, masks, 1)))


def _heads(heads: Heads, h: Array) -> tuple[Array, Array]:
    fixed = not isinstance(heads.log_variance, tuple)
    return cnn1d.dense(heads.value, h), (
        heads.log_variance if fixed else cnn1d.dense(heads.log_variance, h)
    )


def _masked(a: Array, masks: Numbers, place: int) -> Array:
    return a if masks is None else a * masks[place]


def _trunk_shapes(trunk: Trunk, sizes: Architecture, pixels: int) -> tuple[tuple[int, ...], ...]:
    """Of the masks: after the pooling, after the first dense layer, between the convolutions."""
    flat, hidden = trunk.dense[0][0].shape
    between = ((pixels, sizes.filters[0]),) if sizes.mask_convolution else ()
    return ((flat,), (hidden,), *between)


def _masks(key: Key, shapes: Any, rate: float) -> Any:
    """Zeros with probability `rate`, else 1 / (1 - rate); None where nothing is left out."""
    if rate == 0:
        return None
    flat, tree = jax.tree.flatten(shapes, is_leaf=lambda s: all(isinstance(n, int) for n in s))
    keys = jax.random.split(key, len(flat))
    return jax.tree.unflatten(
        tree,
        [
            jax.random.bernoulli(k, 1 - rate, s) / (1 - rate)
            for k, s in zip(keys, flat, strict=True)
        ],
    )


def _squares(tree: PyTree) -> Array:
    weights = [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]
    return sum((jnp.sum(w**2) for w in weights), start=jnp.zeros(()))
