"""A residual network over a cube of voxels (He et al. 2016; Nadler & To 2018, figure 4).

    field -> convolution 3^3, stride 2 -> pool -> three stages of two residual blocks -> dense

Written for one field [voxel, voxel, voxel, channel]; the caller vmaps.  Cubes shrink to one voxel
on the way, and of a kernel over so few voxels most taps only ever meet the zeros around them.
Those are not stored and not computed: the function stays as it is, with a third of the published
weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core.types import Key
from jaxsed.nets import cnn1d

TAPS = 3
"""Of a kernel along each axis."""

FOLDED = 8
"""Voxels along an axis up to which a whole line of them is one vector; see `convolve`."""

BLOCK = 5
"""Voxels that come out of a vector in longer lines."""

WIDE = 64
"""Channels from which on products with the zeros of bands cost more than they save."""

STAGES = (1, 2, 4)
"""Channels of the stages, in units of those of the first layer."""

EPSILON = 1e-5
"""Added to variances."""


class Step(NamedTuple):
    """What a kernel does along an axis: every `stride` voxels, `padding` zeros at both ends."""

    stride: int
    padding: int

    def size(self, voxels: int) -> int:
        """Voxels that come out."""
        return (voxels + 2 * self.padding - TAPS) // self.stride + 1

    def taps(self, voxels: int) -> tuple[int, ...]:
        """Taps that meet a voxel of the field somewhere."""
        out = range(self.size(voxels))
        at = lambda tap: (self.stride * o + tap - self.padding for o in out)  # noqa: E731
        return tuple(t for t in range(TAPS) if any(0 <= place < voxels for place in at(t)))


FIRST, POOL, HALVE, KEEP = Step(2, 3), Step(2, 1), Step(2, 1), Step(1, 1)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes, and where they go beyond the published network."""

    width: int = 20
    """Channels of the first layer, N in the paper."""
    dense: tuple[int, int] = (320, 80)
    dropout: float = 0.1
    norm: bool = False
    """Whether every convolution is followed by a normalisation over the whole field (a group norm
    of one group, Wu & He 2018, in place of the batch norm, which has a state).  Without it the sums
    over a field, which counts are made of, reach the end as they are; residual branches then start
    at zero (De & Smith 2020)."""
    pool: str = "mean"
    """"max" as published, or "mean"."""
    wrap: bool = True
    """Whether the field is periodic, so that the first convolution sees its other side."""

    def __post_init__(self) -> None:
        if min(self.width, *self.dense) < 1:
            raise ValueError(f"expected sizes of one or more, got {self}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"expected 0 <= dropout < 1, got {self.dropout}")
        if self.pool not in ("max", "mean"):
            raise ValueError(f"expected pool 'max' or 'mean', got {self.pool!r}")


PUBLISHED = Architecture(width=200, norm=True, pool="max", wrap=False)
"""Of Nadler & To (2018), but for the kind of normalisation."""


class Convolution(NamedTuple):
    """A kernel and what follows it, one factor and one offset per channel."""

    weight: Array
    """[tap, channel in, channel out], the taps that `Step.taps` names along each axis."""
    scale: Array
    """[channel out]."""
    bias: Array
    """[channel out]."""


class Block(NamedTuple):
    """x -> relu(shortcut(x) + second(relu(first(x))))."""

    first: Convolution
    second: Convolution
    shortcut: Convolution | None
    """Of one tap, where size and channels change."""


@struct.dataclass
class ResNet:
    """The weights."""

    first: Convolution
    stages: tuple[tuple[Block, ...], ...]
    dense: tuple[cnn1d.Layer, ...]
    voxels: int = struct.field(pytree_node=False)
    """Along each axis."""
    architecture: Architecture = struct.field(pytree_node=False)

    def __call__(self, x: Array, extra: Array | None = None, key: Key | None = None) -> Array:
        """[output] of one field.

        Args:
            x: [voxel, voxel, voxel, channel].
            extra: what else the dense layers see, [number] as `init` was given.
            key: draws the dropout, if any.
        """
        sizes = self.architecture
        edges = (*[(FIRST.padding,) * 2] * 3, (0, 0))
        seen = jnp.pad(x, edges, "wrap" if sizes.wrap else "constant")
        h = jax.nn.relu(_layer(self.first, seen, FIRST._replace(padding=0), sizes.norm))
        h = pool(h, sizes.pool)
        for first, *others in self.stages:
            h = _block(first, h, HALVE, sizes.norm)
            for block in others:
                h = _block(block, h, KEEP, sizes.norm)
        h = h.mean(axis=(0, 1, 2))
        if extra is not None:
            h = jnp.concatenate([h, extra])
        keys = (None, None) if key is None else jax.random.split(key)
        for layer, k in zip(self.dense[:-1], keys, strict=True):
            h = cnn1d.dense(layer, h)
            h = jax.nn.relu(_normalised(h) if sizes.norm else h)
            if k is not None and sizes.dropout > 0:
                h = h * jax.random.bernoulli(k, 1 - sizes.dropout, h.shape) / (1 - sizes.dropout)
        return cnn1d.dense(self.dense[-1], h)

    def l2(self) -> Array:
        """Sum of the squares of all weights, factors and offsets apart."""
        weights = [leaf for leaf in jax.tree.leaves(self) if leaf.ndim > 1]
        return sum((jnp.sum(w**2) for w in weights), start=jnp.zeros(()))


def init(
    key: Key,
    voxels: int,
    channels: int,
    outputs: int,
    *,
    extra: int = 0,
    architecture: Architecture | None = None,
) -> ResNet:
    """Random weights (He et al. 2015); the last layer starts at zero.

    Args:
        key: random key.
        voxels: of the field along each axis.
        channels: of the field.
        outputs: of the network.
        extra: numbers that the dense layers see besides the field.
        architecture: sizes.

    Raises ValueError for a field that is too small to be halved so often.
    """
    sizes = architecture or Architecture()
    keys = iter(jax.random.split(key, 64))
    n, width = FIRST.size(voxels), sizes.width
    if voxels < 3:
        raise ValueError(f"expected a field of 3 or more voxels along each axis, got {voxels}")

    def convolution(step: Step | None, n: int, into: int, out: int, scale: float = 1.0) -> Any:
        taps = len(step.taps(n)) ** 3 if step else 1
        weight = (2.0 / (taps * into)) ** 0.5 * jax.random.normal(next(keys), (taps, into, out))
        return Convolution(weight, jnp.full(out, scale), jnp.zeros(out))

    first = convolution(FIRST._replace(padding=0), voxels + 2 * FIRST.padding, channels, width)
    n, into, stages = POOL.size(n), width, []
    # without a normalisation to tame them, residual branches start at zero
    begin = 1.0 if sizes.norm else 0.0
    for factor in STAGES:
        out, half = factor * width, HALVE.size(n)
        blocks = (
            Block(
                convolution(HALVE, n, into, out),
                convolution(KEEP, half, out, out, begin),
                convolution(None, n, into, out),
            ),
            Block(
                convolution(KEEP, half, out, out), convolution(KEEP, half, out, out, begin), None
            ),
        )
        stages.append(blocks)
        n, into = half, out
    a, b = sizes.dense
    dense = (
        cnn1d.init_dense(next(keys), into + extra, a),
        cnn1d.init_dense(next(keys), a, b),
        (jnp.zeros((b, outputs)), jnp.zeros(outputs)),
    )
    return ResNet(first, tuple(stages), dense, voxels, sizes)


def convolve(weight: Array, x: Array, step: Step) -> Array:
    """[voxel, voxel, voxel, channel out] of x [voxel, voxel, voxel, channel], zero beyond the ends.

    out_ijk = sum_abc w_abc x_(s i + a - p)(s j + b - p)(s k + c - p).  Accelerators have a routine
    for this; CPUs are up to a hundred times faster with `convolve_by_matrix`.
    """
    by = convolve_by_matrix if jax.default_backend() == "cpu" else convolve_by_library
    return by(weight, x, step)


def convolve_by_library(weight: Array, x: Array, step: Step) -> Array:
    """`convolve` by the routine of the device."""
    n, (stride, padding), taps = x.shape[0], step, step.taps(x.shape[0])
    # without the taps that are left out, the kernel begins and ends elsewhere
    reach = stride * (step.size(n) - 1) + taps[-1] + 1 - padding
    kernel = weight.reshape(*(len(taps),) * 3, *weight.shape[1:])
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride,) * 3, [(padding - taps[0], reach - n)] * 3,
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )[0]  # fmt: skip


def convolve_by_matrix(weight: Array, x: Array, step: Step) -> Array:
    """`convolve` as one product of matrices.

    The voxels under the kernel lie side by side in a row of one of them.  Along the last axis a row
    holds what a few neighbours see, and the kernel becomes a banded matrix: longer products of
    fewer and longer pieces.
    """
    n, (stride, padding) = x.shape[0], step
    m, taps, channels = step.size(n), step.taps(n), x.shape[-1]
    edges = [(padding, padding)] * 2
    wide = weight.shape[-1] >= WIDE and stride > 1 and len(taps) == TAPS
    if n <= FOLDED and not wide:
        lines, blocks, out = jnp.pad(x.reshape(n, n, -1), (*edges, (0, 0))), 1, m
        matrix = _banded(weight, n, step)
    else:
        out = 1 if wide else BLOCK
        blocks, width, hop = -(-m // out), stride * (out - 1) + TAPS, stride * out
        rest = hop * (blocks - 1) + width - n - padding
        padded = jnp.pad(x, (*edges, (padding, rest), (0, 0)))
        windows = [padded[:, :, q * hop : q * hop + width] for q in range(blocks)]
        lines = jnp.stack([w.reshape(*w.shape[:2], width * channels) for w in windows], axis=2)
        matrix = _banded(weight, width, Step(stride, 0))
    end = stride * (m - 1) + 1
    pieces = [lines[a : a + end : stride, b : b + end : stride] for a in taps for b in taps]
    rows = jnp.concatenate(pieces, axis=-1).reshape(m * m * blocks, -1)
    return (rows @ matrix).reshape(m, m, blocks * out, -1)[:, :, :m]


def _banded(weight: Array, n: int, step: Step) -> Array:
    """[tap tap voxel-in channel-in, voxel-out channel-out] a kernel along a line of n voxels."""
    m, taps = step.size(n), step.taps(n)
    place = np.zeros((n, m, len(taps)), np.float32)
    for number, tap in enumerate(taps):
        for o in range(m):
            at = step.stride * o + tap - step.padding
            if 0 <= at < n:
                place[at, o, number] = 1.0
    _, into, out = weight.shape
    kernel = weight.reshape(len(taps) ** 2, len(taps), into, out)
    # a product with zeros and ones: picking would be as fast, but not its gradient
    banded = jnp.einsum("ltio,nmt->lnimo", kernel, jnp.asarray(place, weight.dtype))
    return banded.reshape(-1, m * out)


def pool(x: Array, kind: str) -> Array:
    """The largest ("max") or the mean of three voxels along each axis, every second one."""
    m = POOL.size(x.shape[0])
    end = POOL.stride * (m - 1) + 1
    for axis in range(3):
        edges = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        h = jnp.pad(x, edges)  # zero is the least that comes out of a relu
        parts = [jax.lax.slice_in_dim(h, t, t + end, POOL.stride, axis) for t in range(TAPS)]
        a, b, c = parts
        x = jnp.maximum(jnp.maximum(a, b), c) if kind == "max" else (a + b + c) / TAPS
    return x


def parameter_count(network: ResNet) -> int:
    """Numbers in the network."""
    return sum(leaf.size for leaf in jax.tree.leaves(network))


def _layer(layer: Convolution, x: Array, step: Step, norm: bool) -> Array:
    h = convolve(layer.weight, x, step)
    return (_normalised(h) if norm else h) * layer.scale + layer.bias


def _normalised(h: Array) -> Array:
    return (h - h.mean()) * jax.lax.rsqrt(h.var() + EPSILON)


def _block(block: Block, x: Array, step: Step, norm: bool) -> Array:
    h = jax.nn.relu(_layer(block.first, x, step, norm))
    h = _layer(block.second, h, KEEP, norm)
    if block.shortcut is not None:
        weight, scale, bias = block.shortcut
        x = x[:: step.stride, :: step.stride, :: step.stride] @ weight[0]
        x = (_normalised(x) if norm else x) * scale + bias
    return jax.nn.relu(x + h)
