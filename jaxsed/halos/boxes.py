"""Boxes of halos as networks take them, galaxies counted in bins of stellar mass."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.types import Key, Numbers
from jaxsed.halos.catalogue import V_PEAK, Halos

EDGES = tuple(np.round(np.linspace(10.2, 11.6, 15), 10).tolist())
"""log10 stellar mass in Msun: the 14 bins of Nadler & To (2018)."""

WIDE = 10.0
"""A positive feature whose largest value is so many times its smallest is taken as a logarithm."""

SLOTS = 256
"""Boxes have room for a multiple of so many halos."""

ROOMY = 0.95
"""Share of the boxes of a training that have room for all their halos: a few rich ones would make
all others several times as large."""


class Box(NamedTuple):
    """One box, with room for more halos than it has."""

    position: Numbers
    """[slot, 3] from 0 to 1."""
    features: Numbers
    """[slot, feature] standardised."""
    present: Any
    """[slot] one, or zero where there is no halo."""


@dataclasses.dataclass(frozen=True)
class Features:
    """Which features of a halo a network sees, and in which units."""

    names: Annotated[tuple[str, ...], "feature"]
    logs: Annotated[tuple[bool, ...], "feature"]
    """Whether a feature is taken as log10."""
    mean: Annotated[tuple[float, ...], "feature"]
    std: Annotated[tuple[float, ...], "feature"]

    @classmethod
    def of(cls, halos: Halos, names: Any = None) -> Features:
        """Units in which the halos' features have mean zero and variance one.

        Raises ValueError for a feature that the halos lack, and for one that never varies.
        """
        names = tuple(names or sorted(halos.features, key=lambda name: (name != V_PEAK, name)))
        _check_names(names, halos)
        logs, mean, std = [], [], []
        for name in names:
            values = halos.features[name].astype(float)
            low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
            if not high > low:
                raise ValueError(f"all halos have the same {name}: leave it out")
            logs.append(bool(low > 0 and high > WIDE * low))
            values = np.log10(values) if logs[-1] else values
            mean.append(float(values.mean()))
            std.append(float(values.std()))
        return cls(names, tuple(logs), tuple(mean), tuple(std))

    def of_halos(self, halos: Halos) -> np.ndarray:
        """[halo, feature] standardised.

        Raises ValueError for a feature that the halos lack, and for one whose logarithm is taken
        but which is not positive.
        """
        _check_names(self.names, halos)
        columns = []
        for name, log, mean, std in zip(self.names, self.logs, self.mean, self.std, strict=True):
            values = halos.features[name].astype(float)
            low = np.flatnonzero(~(values > 0)) if log else np.zeros(0, int)
            if low.size:
                raise ValueError(
                    f"{name} of halo {low[0]} is {values[low[0]]:g}: it was positive for all halos "
                    "of the training, and its logarithm is what the network sees"
                )
            columns.append(((np.log10(values) if log else values) - mean) / std)
        return np.stack(columns, axis=1).astype(np.float32)


def _check_names(names: tuple[str, ...], halos: Halos) -> None:
    lacking = [name for name in names if name not in halos.features]
    if lacking:
        raise ValueError(
            f"the halos have no {', '.join(lacking)}, which the training had; they have "
            f"{', '.join(sorted(halos.features))}"
        )


def slots_of(halos: Halos) -> int:
    """Room for the halos of most boxes."""
    count = np.bincount(halos.box, minlength=len(halos))
    return max(1, -(-int(np.quantile(count, ROOMY)) // SLOTS)) * SLOTS


def pack(halos: Halos, features: Features, slots: int) -> Box:
    """[box, ..] the boxes of a catalogue; of a box with more halos than `slots` those with the
    largest peak velocities."""
    n, count = len(halos), np.bincount(halos.box, minlength=len(halos))
    order = np.lexsort((-halos.features[V_PEAK], halos.box))
    slot = np.arange(order.size) - (np.cumsum(count) - count)[halos.box]
    rows, box, slot = (a[slot < slots] for a in (order, halos.box, slot))
    position = np.zeros((n, slots, 3), np.float32)
    seen = np.zeros((n, slots, len(features.names)), np.float32)
    present = np.zeros((n, slots), np.float32)
    position[box, slot] = halos.position[rows] / halos.box_size
    seen[box, slot] = features.of_halos(halos)[rows]
    present[box, slot] = 1.0
    return Box(position, seen, present)


def paint(box: Box, voxels: int) -> Array:
    """[voxel, voxel, voxel, 1 + feature] number of halos, and the means of their features.

    Features are zero where there is no halo.
    """
    place = jnp.clip((box.position * voxels).astype(int), 0, voxels - 1)
    flat = (place[:, 0] * voxels + place[:, 1]) * voxels + place[:, 2]
    columns = jnp.concatenate([jnp.ones_like(box.present)[:, None], box.features], axis=1)
    columns = columns * box.present[:, None]
    total = jnp.zeros((voxels**3, columns.shape[1]), columns.dtype).at[flat].add(columns)
    mean = total[:, 1:] / jnp.maximum(total[:, :1], 1.0)
    return jnp.concatenate([total[:, :1], mean], axis=1).reshape(voxels, voxels, voxels, -1)


def turned(key: Key, box: Box, periodic: bool) -> Box:
    """The box in one of the 48 orientations of a cube, and if it is periodic, moved at random."""
    key_shift, key_order, key_flip = jax.random.split(key, 3)
    place = box.position
    if periodic:
        place = jnp.mod(place + jax.random.uniform(key_shift, (3,)), 1.0)
    place = place[:, jax.random.permutation(key_order, 3)]
    place = jnp.where(jax.random.bernoulli(key_flip, shape=(3,)), 1.0 - place, place)
    return box._replace(position=place)


def galaxy_counts(halos: Halos, edges: Numbers = EDGES) -> np.ndarray:
    """[box, bin] galaxies, in bins of log10 stellar mass in Msun.

    Raises ValueError where the stellar masses are not known.
    """
    number, inside = bin_of(halos, edges)
    counts = np.zeros((len(halos), len(edges) - 1), np.float32)
    np.add.at(counts, (halos.box[inside], number[inside]), 1.0)
    return counts


def bin_of(halos: Halos, edges: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """[halo] the bin of log10 stellar mass in Msun of each galaxy, and whether it is in one.

    Raises ValueError where the stellar masses are not known.
    """
    if halos.stellar_mass is None:
        raise ValueError("the halos have no stellar_mass to learn from")
    edges = check_edges(edges)
    with np.errstate(divide="ignore"):
        number = np.digitize(np.log10(halos.stellar_mass), edges) - 1
    return number, (number >= 0) & (number < len(edges) - 1)


def check_edges(edges: Numbers) -> np.ndarray:
    """[bin + 1]; ValueError unless they increase."""
    found = np.asarray(edges, float)
    if found.ndim != 1 or found.size < 2 or not (np.diff(found) > 0).all():
        raise ValueError(f"expected two or more increasing edges of log10 mass, got {edges}")
    return found


def mass_function(count: Any, edges: Numbers, volume: float) -> np.ndarray:
    """phi [.., bin] in Mpc^-3 dex^-1 of counts in boxes of a volume in Mpc^3."""
    return np.asarray(count) / (np.diff(np.asarray(edges, float)) * volume)
