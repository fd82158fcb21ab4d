"""A trained network of halos and what surrounds it: from catalogues to stellar mass functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import IntFlag
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core import flags
from jaxsed.core.types import PyTree
from jaxsed.halos import formation, networks
from jaxsed.halos.boxes import Box, Features, check_edges, mass_function, pack
from jaxsed.halos.catalogue import Halos
from jaxsed.halos.formation import Shares, Typical
from jaxsed.halos.networks import Architecture, Network
from jaxsed.halos.support import Support
from jaxsed.io.components import Component, Flat, parse
from jaxsed.io.flat import check_sizes
from jaxsed.learn.batches import in_batches
from jaxsed.learn.record import TrainingRecord

BATCH = 32
"""Boxes in a compiled call."""

SIZE_TOLERANCE = 1e-3
"""Relative difference of box sizes in Mpc that counts as none."""


class BoxFlag(IntFlag):
    """Bits of the column ``flag``; 0 is good.  The values never change meaning."""

    EMPTY = 1
    OUTSIDE_TRAINING = 2
    NUMERICAL_FAILURE = 4
    STRANGE_HALOS = 8


TEXT: dict[BoxFlag, str] = {
    BoxFlag.EMPTY: "no halo: no galaxies either",
    BoxFlag.OUTSIDE_TRAINING: "more or fewer halos than any box of the training",
    BoxFlag.NUMERICAL_FAILURE: "no finite result",
    BoxFlag.STRANGE_HALOS: "its halos are not like those of any box of the training",
}


def flag_text(flag: int) -> str:
    """The flag in words, '; ' between them; '' for 0."""
    return flags.flag_text(flag, TEXT)


@dataclasses.dataclass(frozen=True)
class Record:
    """What a model was trained on, and how well it did on the boxes held out of it.

    These also stopped the training and set the calibration, so `validation` is in its favour: the
    errors on new boxes are measured on boxes that chose nothing.
    """

    kind: str
    edges: Annotated[tuple[float, ...], "bin+1"]
    """log10 stellar mass in Msun."""
    features: Features
    box_size: float
    """Mpc/h."""
    hubble: float
    v_peak_min: float
    """km/s; halos below it were left out and are left out of predictions."""
    support: Support
    slots: int
    """Halos of a box that the network sees; see `boxes.pack`."""
    boxes: int
    """Of the training."""
    seed: int
    validation: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False, compare=False)
    trainings: tuple[TrainingRecord, ...] = ()
    """Of each member; none in baselines and in older files."""

    def check(self, halos: Halos) -> None:
        """ValueError unless the boxes have the size of the training's."""
        own, other = self.box_size / self.hubble, halos.box_size / halos.hubble
        if abs(own - other) > SIZE_TOLERANCE * own:
            raise ValueError(
                f"the boxes are {other:.3f} Mpc wide ({halos.box_size:g} Mpc/h, h = "
                f"{halos.hubble:g}), those of the training {own:.3f}: cut boxes of that size"
            )

    def check_parts(self) -> None:
        """ValueError unless the parts of the record fit each other."""
        check_edges(self.edges)
        n = 1 + 2 * len(self.features.names)
        if len(self.support.centre) != n:
            raise ValueError(f"expected a support of {n} numbers")
        check_sizes([self.slots, self.v_peak_min])
        if not (self.slots >= 1 and self.box_size > 0 and self.hubble > 0):
            raise ValueError("expected slots, a box size and a Hubble constant above zero")


class MassFunctions(NamedTuple):
    """Of many boxes; NaN where there is no finite result."""

    count: np.ndarray  # type: ignore[assignment]  # hides the method of tuples
    """[box, bin] expected number of galaxies."""
    count_std: np.ndarray
    """[box, bin] how far the number in a box lies from it."""
    phi: np.ndarray
    """[box, bin] Mpc^-3 dex^-1."""
    phi_std: np.ndarray
    """[box, bin]."""
    flag: np.ndarray
    """[box] `BoxFlag` bits."""
    formation: Shares | None = None
    """Of star formation [box, bin], where the training knew of it."""


def mass_functions(
    record: Record, halos: Halos, count: np.ndarray, count_std: np.ndarray,
    shares: Shares | None = None,
) -> MassFunctions:
    """What a model of any kind has predicted [box, bin], with flags; empty boxes have no galaxy."""
    found = np.bincount(halos.box, minlength=len(halos))
    broken = ~np.isfinite(count + count_std).all(axis=1)
    flag = np.where(found == 0, int(BoxFlag.EMPTY), 0)
    flag |= np.where(record.support.outside(halos), int(BoxFlag.OUTSIDE_TRAINING), 0)
    strange = record.support.strange(halos, record.features)
    flag |= np.where(strange, int(BoxFlag.STRANGE_HALOS), 0)
    flag |= np.where(broken & (found > 0), int(BoxFlag.NUMERICAL_FAILURE), 0)
    count, std = (np.where(found[:, None] == 0, 0.0, a) for a in (count, count_std))
    count, std = (np.where((broken & (found > 0))[:, None], np.nan, a) for a in (count, std))
    phi, phi_std = (mass_function(a, record.edges, halos.volume) for a in (count, std))
    if shares is not None:
        nothing = (broken | (found == 0))[:, None]
        shares = Shares(*(np.where(nothing, np.nan, a) for a in shares))
    return MassFunctions(count, std, phi, phi_std, flag, shares)


def _like(own: Any, attributes: Any) -> Network:
    """A network of the sizes in a file."""
    own.record.check_parts()
    check_sizes(attributes["architecture"])
    return networks.init(
        jax.random.key(0), len(own.record.features.names), len(own.record.edges) - 1,
        typical=float(attributes["typical"]), forming=own.typical is not None,
        architecture=parse(Architecture, attributes["architecture"]),
    )  # fmt: skip


@struct.dataclass
class HaloModel(
    Component,
    kind="halo network",
    names={"members/{}": "member{}", "typical/{}": "typical_{}"},
):
    """``model(box) -> counts`` for one box of halos.

    `members` are the networks of an ensemble (one, usually).
    """

    members: Annotated[tuple[Network, ...], Flat(_like)]
    log_mean: Annotated[Array, "bin"]
    """ln of the mean number of galaxies in a box of the training."""
    calibration: Annotated[Array, "bin"]
    """Factor on the standard deviation, from boxes kept apart."""
    record: Record = struct.field(pytree_node=False)
    typical: Typical | None = None
    """Star formation in the boxes of the training, where it was known."""
    formation_calibration: Annotated[Array, "2"] | None = None
    """The factors of the shares of quiescent galaxies and of the rates."""

    def __call__(self, box: Box) -> tuple[Array, Array]:
        """Expected number of galaxies [bin] in one box, and its standard deviation [bin]."""
        count, std, _ = self.everything(box)
        return count, std

    def everything(self, box: Box) -> tuple[Array, Array, Shares | None]:
        """The same, and where the training knew of it, star formation."""
        outputs = [member(box) for member in self.members]
        each = [expected(output, self.log_mean) for output in outputs]
        mean, variance = (jnp.stack(a) for a in zip(*each, strict=True))
        spread = jnp.var(mean, axis=0)
        count, std = mean.mean(axis=0), jnp.sqrt(variance.mean(axis=0) + spread)
        return count, self.calibration * std, self._shares(outputs, count)

    def _shares(self, outputs: list[networks.Outputs], count: Array) -> Shares | None:
        if self.typical is None:
            return None
        told = [formation.shares(o.logit, o.log_sfr, count, self.typical) for o in outputs]
        share, share_std, rate, rate_std = (jnp.stack(a) for a in zip(*told, strict=True))
        factors = jnp.ones(2) if self.formation_calibration is None else self.formation_calibration
        return Shares(
            share.mean(0), factors[0] * jnp.sqrt((share_std**2).mean(0) + share.var(0)),
            rate.mean(0), factors[1] * jnp.sqrt((rate_std**2).mean(0) + rate.var(0)),
        )  # fmt: skip

    def predict(
        self, halos: Halos, *, progress: Callable[[int, int], None] | None = None
    ) -> MassFunctions:
        """Mass functions of all boxes of a catalogue.

        Args:
            halos: boxes of the training's size.
            progress: called with (boxes done, boxes in all).

        Raises ValueError for boxes of another size, and for features that the halos lack.
        """
        self.record.check(halos)
        halos = halos.above(self.record.v_peak_min)

        def run(rows: np.ndarray) -> PyTree:
            packed = pack(halos.take(rows), self.record.features, self.record.slots)
            return _predict_batch(self, packed)

        count, std, shares = in_batches(run, len(halos), BATCH, progress)
        return mass_functions(self.record, halos, count, std, shares)

    def _counts(self) -> dict[str, Any]:
        return {"members": len(self.members)}

    def _about(self) -> dict[str, Any]:
        first = self.members[0]
        sizes = dataclasses.asdict(architecture_of(first))
        return {"architecture": sizes, "typical": first.typical}

    def _after_loading(self) -> HaloModel:
        if not self.members:
            raise ValueError("no members")
        self.record.check_parts()
        return self


def architecture_of(network: Network) -> Architecture:
    """The sizes that a network was made with."""
    census = network.census or ()
    return Architecture(
        voxels=network.resnet.voxels,
        resnet=network.resnet.architecture,
        census=tuple(layer[1].size for layer in census),
        counted=network.counted,
    )


def expected(outputs: networks.Outputs, log_mean: Array) -> tuple[Array, Array]:
    """Mean and variance [bin] of the number of galaxies: mean + mean^2 exp(log excess)."""
    mean = jnp.exp(log_mean + outputs.log_ratio)
    return mean, mean + mean**2 * jnp.exp(outputs.log_excess)


@jax.jit
def _predict_batch(model: HaloModel, boxes: Box) -> Any:
    return jax.vmap(model.everything)(jax.tree.map(jnp.asarray, boxes))
