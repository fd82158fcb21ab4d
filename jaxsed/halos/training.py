"""Training of halo networks: losses for numbers of galaxies, and what is measured afterwards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key, Numbers
from jaxsed.halos import formation, networks
from jaxsed.halos.boxes import (
    EDGES,
    Box,
    Features,
    check_edges,
    galaxy_counts,
    pack,
    slots_of,
    turned,
)
from jaxsed.halos.catalogue import V_PEAK_CUT, Halos
from jaxsed.halos.formation import Formation, Typical
from jaxsed.halos.model import HaloModel, Record, expected
from jaxsed.halos.networks import Architecture, Network, Outputs
from jaxsed.halos.support import Support
from jaxsed.learn import FitSettings, History
from jaxsed.learn.calibration import FEWEST, rms_factor
from jaxsed.learn.ensemble import fit_ensemble
from jaxsed.learn.record import training_record

VALIDATION = 0.15
"""Share of the boxes that a training never sees."""

FLOOR = 1.0
"""Galaxies by which the variance of chi-square exceeds the observed number."""

LOSSES = ("chi2", "poisson")


class Batch(NamedTuple):
    """Boxes and what is in them."""

    boxes: Box
    counts: Numbers
    """[box, bin] galaxies."""
    formation: Formation | None = None
    """Their star formation, where it is known."""


@dataclasses.dataclass(frozen=True)
class HaloSettings:
    """How a network is trained."""

    architecture: Architecture = dataclasses.field(default_factory=Architecture)
    edges: tuple[float, ...] = EDGES
    v_peak_min: float = V_PEAK_CUT
    """km/s; halos below it are left out."""
    features: tuple[str, ...] | None = None
    """By default all of them."""
    loss: str = "poisson"
    """"poisson", or "chi2" (Nadler & To 2018, eq. 1, in numbers of galaxies), which prefers numbers
    that are too low: its variances are those of what was counted."""
    floor: float = FLOOR
    covariance: Any = None
    """[bin, bin] of phi in (Mpc^-3 dex^-1)^2, in place of chi-square's Poisson variances."""
    smoothness: float = 0.0
    """Weight of the squared second differences of ln phi from bin to bin."""
    l2: float = 1e-5
    periodic: bool = True
    """Whether a box goes on at its other side, as a whole simulation does and a part does not.
    Boxes that do not are never moved, and the network does not look across their faces."""
    members: int = 1
    """Networks of an ensemble."""
    fit: FitSettings = dataclasses.field(
        default_factory=lambda: FitSettings(
            optimizer="nadam", schedule="cosine", learning_rates=(1e-3, 1e-5), batch_size=32,
            epochs=100, patience=100, warmup=0.1, clip_norm=1.0,
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}: choose one of {', '.join(LOSSES)}")
        if self.covariance is not None and self.loss != "chi2":
            raise ValueError(f"a covariance needs the loss 'chi2', got {self.loss!r}")


def chi2(mean: Numbers, counts: Numbers, floor: float = FLOOR) -> Numbers:
    """[..] sum over bins of (mean - n)^2 / (n + floor): Poisson variances of what was observed."""
    return ((mean - counts) ** 2 / (counts + floor)).sum(axis=-1)


def train(
    key: Key,
    halos: Halos,
    *,
    settings: HaloSettings | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> tuple[HaloModel, list[History]]:
    """Train a network (or an ensemble) on boxes whose galaxies are known.

    At every step the boxes are turned into one of the cube's 48 orientations, and moved at random
    if they are periodic.  Some boxes are kept apart: they decide which epoch is best, and set the
    factor that makes the uncertainties right on average.  Where star formation rates are known, the
    share of quiescent galaxies and the mean rate of the others are learned too.

    Args:
        key: random key; fixes weights, the boxes kept apart, and the order of the rest.
        halos: boxes with stellar masses.
        settings: sizes, loss and schedule.
        checkpoint: HDF5 file to go on from if it exists; each member adds its number.
        progress: show a progress line.

    Returns the model, and the history of each member.

    Raises ValueError for halos without stellar masses, fewer boxes than a batch, and a bin of mass
    in which no box has a galaxy.
    """
    key = typed_key(key)
    settings = settings or HaloSettings()
    edges = tuple(check_edges(settings.edges).tolist())
    counts = galaxy_counts(halos, edges)
    halos = halos.above(settings.v_peak_min)
    key_split, *keys = jax.random.split(key, settings.members + 1)
    shown, held = split(key_split, len(halos))
    features = Features.of(halos.take(shown), settings.features)
    log_mean = log_means(counts[shown], edges)
    slots = slots_of(halos.take(shown))
    stars = [None if halos.sfr is None else formation.formation(halos.take(rows), edges)
             for rows in (shown, held)]  # fmt: skip
    usual = None if stars[0] is None else formation.typical(stars[0])
    training, validation = (
        Batch(pack(halos.take(rows), features, slots), counts[rows], known)
        for rows, known in zip((shown, held), stars, strict=True)
    )
    found = np.bincount(halos.box, minlength=len(halos))[shown]
    loss = loss_of(settings, log_mean, halos.volume, usual)
    resnet = settings.architecture.resnet
    architecture = dataclasses.replace(
        settings.architecture,
        resnet=dataclasses.replace(resnet, wrap=resnet.wrap and settings.periodic),
    )
    init = lambda k: networks.init(  # noqa: E731
        k, len(features.names), len(edges) - 1,
        typical=float(found.mean()), forming=usual is not None, architecture=architecture,
    )  # fmt: skip
    members, histories = fit_ensemble(
        keys, init, loss, training, settings=settings.fit, validation=validation,
        checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    record = Record(
        kind="resnet", edges=edges, features=features, box_size=halos.box_size,
        hubble=halos.hubble, v_peak_min=settings.v_peak_min,
        support=Support.of(halos.take(shown), features), slots=slots, boxes=len(shown),
        seed=int(jax.random.key_data(key)[-1]),
        trainings=tuple(
            training_record(jax.random.key_data(key), settings, history) for history in histories
        ),
    )  # fmt: skip
    model = HaloModel(members, log_mean, jnp.ones(len(edges) - 1), record, usual)
    return calibrated(model, halos.take(held), counts[held], stars[1]), histories


def split(key: Key, boxes: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the boxes to learn from, and of those to keep apart."""
    order = np.asarray(jax.random.permutation(key, boxes))
    held = max(1, round(VALIDATION * boxes))
    return np.sort(order[held:]), np.sort(order[:held])


def log_means(counts: np.ndarray, edges: tuple[float, ...]) -> Array:
    """[bin] ln of the mean number of galaxies in a box.

    Raises ValueError for a bin that is empty in all boxes.
    """
    mean = counts.mean(axis=0)
    if not (mean > 0).all():
        j = int(np.argmin(mean > 0))
        raise ValueError(
            f"no galaxy of the training has a log10 stellar mass of {edges[j]:g} to "
            f"{edges[j + 1]:g}: choose other bins"
        )
    return jnp.asarray(np.log(mean), jnp.float32)


def loss_of(
    settings: HaloSettings, log_mean: Array, volume: float, usual: Typical | None = None
) -> Any:
    """The loss that `jaxsed.learn.fit` takes, for boxes of a volume in Mpc^3 whose galaxies have
    such star formation."""
    whiten = None
    if settings.covariance is not None:
        per_phi = np.diff(np.asarray(settings.edges)) * volume
        covariance = np.asarray(settings.covariance, float) * per_phi[:, None] * per_phi
        whiten = jnp.asarray(np.linalg.inv(np.linalg.cholesky(covariance)), jnp.float32)

    def of_box(outputs: Outputs, n: Array, known: Any) -> Array:
        mean, variance = expected(outputs, log_mean)
        if settings.loss == "poisson":
            fit_of = jnp.sum(mean - n * jnp.log(mean))
        elif whiten is not None:
            fit_of = jnp.sum((whiten @ (mean - n)) ** 2)
        else:
            fit_of = chi2(mean, n, settings.floor)
        # The scatter is learned from the differences as they are: it must not bend the means.
        fixed, log_excess = jax.lax.stop_gradient(mean), outputs.log_excess
        variance = fixed + fixed**2 * jnp.exp(log_excess)
        scatter = 0.5 * jnp.sum((n - fixed) ** 2 / variance + jnp.log(variance))
        log_phi = log_mean + outputs.log_ratio
        rough = jnp.sum(jnp.diff(log_phi, n=2) ** 2)
        stars = jnp.zeros(())
        if usual is not None:
            stars = formation.misfit(outputs.logit, outputs.log_sfr, known, usual)
        return fit_of + scatter + stars + settings.smoothness * rough

    def loss(network: Network, batch: Batch, key: Key) -> Array:
        key_turn, key_drop = jax.random.split(key)
        n = batch.counts.shape[0]
        boxes = jax.vmap(lambda k, box: turned(k, box, settings.periodic))(
            jax.random.split(key_turn, n), batch.boxes
        )
        outputs = jax.vmap(network)(boxes, jax.random.split(key_drop, n))
        each = jax.vmap(of_box)(outputs, batch.counts, batch.formation)
        return jnp.mean(each) + settings.l2 * network.l2()

    return loss


def calibrated(
    model: HaloModel, held: Halos, counts: np.ndarray, known: Formation | None = None
) -> HaloModel:
    """With uncertainties that are right on average for the boxes held out of the training.

    The factor of a bin is the root of the mean squared difference in units of the uncertainty; one
    factor for all bins of the shares of quiescent galaxies, and one of their rates.
    """
    found = model.predict(held)
    factor = np.ones(counts.shape[1])
    if len(held) >= FEWEST:
        factor = rms_factor(found.count - counts, found.count_std)
    figures = {
        "chi2": float(chi2(found.count, counts).mean()),
        "bias": (found.count.mean(axis=0) / np.maximum(counts.mean(axis=0), 1e-9) - 1).tolist(),
    }
    record = dataclasses.replace(model.record, validation=figures)
    factors = None
    if known is not None:
        both = np.ones(2)
        if len(held) >= FEWEST:
            assert found.formation is not None
            units = formation.off(found.formation, known)
            tells = known.quiescent + known.forming > 0, known.forming > 0
            both = np.array(
                [np.sqrt(np.mean(z[some] ** 2)) for z, some in zip(units, tells, strict=True)]
            )
        factors = jnp.asarray(both, jnp.float32)
    return dataclasses.replace(
        model, calibration=jnp.asarray(factor, jnp.float32), record=record,
        formation_calibration=factors,
    )  # fmt: skip
