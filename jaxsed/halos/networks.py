"""From a box of halos to the numbers of its galaxies: the residual network and a census of halos.

The residual network (Nadler & To 2018) sees a field: the number of halos in each voxel and the
means of their features.  Galaxies are counted, and a count is a sum over halos, which a field of
means and a network of convolutions make hard to form.  So a second, small network looks at every
halo by itself, and its outputs, summed over the box, are told to the last layers of the first: the
*census*.

Written for one box; the caller vmaps.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from jaxsed.core.types import Key, Numbers
from jaxsed.halos.boxes import Box, paint
from jaxsed.nets import mlp, resnet3d

ACTIVATION = "relu"
"""Of the census, which is computed for every halo: others would take most of the time."""

LIMIT = 5.0
"""Logarithms stay within this, smoothly: no step of a training and no odd box can overflow."""

LOG_EXCESS = -2.0
"""Where the excess starts: a scatter of 37 % beyond Poisson's."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes.  The published network has no census and sees only the mean peak velocity."""

    voxels: int = 25
    """Along each side of a box."""
    resnet: resnet3d.Architecture = dataclasses.field(default_factory=resnet3d.Architecture)
    census: tuple[int, ...] = (32, 32)
    """Widths of the network that looks at one halo; empty for no census."""
    counted: bool = True
    """Whether the number of halos in a voxel is a channel of the field."""


class Outputs(NamedTuple):
    """Of one box."""

    log_ratio: Array
    """[bin] ln of the expected number of galaxies over the mean of the training."""
    log_excess: Array
    """[bin] ln of the variance of the number beyond that of a Poisson law, over its square."""
    logit: Any = None
    """[bin] of the share of quiescent galaxies, less the typical one."""
    log_sfr: Numbers = None
    """[bin] dex of the others' mean star formation rate, less the typical one."""


@struct.dataclass
class Network:
    """The weights."""

    resnet: resnet3d.ResNet
    census: mlp.Layers | None
    typical: float = struct.field(pytree_node=False)
    """Halos in a box, from which the census is told in logarithms."""
    counted: bool = struct.field(pytree_node=False)
    forming: bool = struct.field(pytree_node=False, default=False)
    """Whether star formation is told as well."""

    def __call__(self, box: Box, key: Key | None = None) -> Outputs:
        """Numbers of galaxies of one box; `key` draws the dropout, if any."""
        field = paint(box, self.resnet.voxels)
        extra = None if self.census is None else self._census(box)
        found = self.resnet(field if self.counted else field[..., 1:], extra, key)
        found = LIMIT * jnp.tanh(found / LIMIT)
        ratio, excess, *formation = jnp.split(found, 4 if self.forming else 2)
        return Outputs(ratio, excess + LOG_EXCESS, *formation)

    def _census(self, box: Box) -> Array:
        """[number] ln[(1 + sum over halos of relu(network of one halo)) / (1 + typical)]."""
        census = self.census
        assert census is not None
        of_halo = lambda one: jax.nn.relu(mlp.apply(census, one, ACTIVATION))  # noqa: E731
        each = jax.vmap(of_halo)(box.features)
        total = jnp.sum(box.present[:, None] * each, axis=0)
        return jnp.log1p(total) - math.log1p(self.typical)

    def l2(self) -> Array:
        """Sum of the squares of all weights."""
        census = sum((jnp.sum(w**2) for w, *_ in self.census or ()), start=jnp.zeros(()))
        return self.resnet.l2() + census


def init(
    key: Key,
    features: int,
    bins: int,
    *,
    typical: float = 1000.0,
    forming: bool = False,
    architecture: Architecture | None = None,
) -> Network:
    """Random weights for halos with so many features, so many bins of stellar mass, and so many
    halos in a typical box; whether it tells of star formation."""
    sizes = architecture or Architecture()
    key_resnet, key_census = jax.random.split(key)
    widths = (features, *sizes.census)
    census = mlp.init(key_census, widths, ACTIVATION) if sizes.census else None
    resnet = resnet3d.init(
        key_resnet, sizes.voxels, features + sizes.counted, (4 if forming else 2) * bins,
        extra=sizes.census[-1] if sizes.census else 0, architecture=sizes.resnet,
    )  # fmt: skip
    return Network(resnet, census, typical, sizes.counted, forming)
