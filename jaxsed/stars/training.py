"""Training of star networks: the loss for incomplete labels, the schedule, what is kept apart."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key, Numbers
from jaxsed.learn import FitSettings, History
from jaxsed.learn.ensemble import fit_ensemble
from jaxsed.learn.record import training_record
from jaxsed.stars import networks
from jaxsed.stars.batches import Batch, batch_of, scaling_of
from jaxsed.stars.data import Spectra
from jaxsed.stars.model import StarModel
from jaxsed.stars.networks import Architecture, Network
from jaxsed.stars.prediction import reach_of
from jaxsed.stars.record import Record
from jaxsed.stars.uncertainty import calibrated, with_laplace

L2 = 5e-9
"""Weight of the sum of squared weights in the loss, as in astroNN."""

VALIDATION = 0.1
"""Share of the stars that a training never sees."""


@dataclasses.dataclass(frozen=True)
class StarSettings:
    """How a network is trained."""

    architecture: Architecture | None = None
    """By default as published."""
    l2: float = L2
    members: int = 1
    """Networks of a deep ensemble (Lakshminarayanan et al. 2017)."""
    laplace: bool = False
    """Whether predictions have a posterior of the last layer's weights (`with_laplace`) instead of
    dropout, which then acts in the training alone."""
    noise: float = 0.0
    """Flux noise added to every spectrum of the training, anew at each step, in units of its own
    uncertainty times a random factor from 0 to this, small ones more often."""
    fit: FitSettings = dataclasses.field(
        default_factory=lambda: FitSettings(
            optimizer="adam", learning_rates=tuple(5e-4 * 0.5**k for k in range(6)),
            batch_size=64, epochs=100, patience=4,
        )
    )  # fmt: skip
    """The optimiser.  By default Adam, whose rate is halved when four epochs have not lowered the
    loss of the validation stars."""


def loss_of(outputs: networks.Outputs, batch: Batch) -> Array:
    """Of one star: Leung & Bovy (2018), eqs. 5-7.

    J = (1/D_i) sum over present labels of [(y - yhat)^2 / v + ln v] / 2 with
    v = exp(log variance) + (known variance): the mean over D labels with D - D_i zeros in it,
    times D / D_i.
    """
    v = jnp.exp(outputs.log_variance) + batch.variance
    each = 0.5 * ((batch.y - outputs.value) ** 2 / v + jnp.log(v))
    return jnp.sum(batch.present * each) / jnp.maximum(jnp.sum(batch.present), 1.0)


def train(
    key: Key,
    stars: Spectra,
    kind: str,
    *,
    settings: StarSettings | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> tuple[StarModel, list[History]]:
    """Train a network (or an ensemble) on labelled stars.

    A tenth of the stars is kept apart: it decides when the learning rate falls and which epoch is
    best, and sets the factor that makes the uncertainties right on average.

    Args:
        key: random key; fixes weights, the stars kept apart, and the order of the rest.
        stars: spectra with labels; those without a usable pixel or label are left out.
        kind: "bcnn", "censored" (the stars must have `windows`) or "starnet".
        settings: sizes and schedule.
        checkpoint: HDF5 file to go on from if it exists; each member adds its number.
        progress: show a progress line.

    Returns the model, and the history of each member.

    Raises ValueError for stars without labels, too few of them, and as `networks.init` does.
    """
    settings = settings or StarSettings()
    if stars.labels is None or stars.label_error is None:
        raise ValueError("the stars have no labels to learn from")
    good = np.isfinite(stars.labels).any(axis=1) & np.isfinite(stars.flux).any(axis=1)
    stars = stars.take(np.flatnonzero(good))
    assert stars.labels is not None
    key = typed_key(key)
    key_split, *keys, key_calibration = jax.random.split(key, settings.members + 2)
    order = np.asarray(jax.random.permutation(key_split, len(stars)))
    held_count = max(1, round(VALIDATION * len(stars)))
    shown, held = stars.take(order[held_count:]), stars.take(order[:held_count])
    scaling = scaling_of(shown)
    training: Any = (batch_of(shown, scaling), _noise(shown, settings))
    validation = (batch_of(held, scaling), _noise(held, settings))
    loss = _loss(settings.l2, settings.noise)
    windows: Any = {name: jnp.asarray(window) for name, window in stars.windows.items()}
    init = lambda k: networks.init(  # noqa: E731
        k, kind, stars.wave.size, stars.names, windows=windows, architecture=settings.architecture
    )
    members, histories = fit_ensemble(
        keys, init, loss, training, settings=settings.fit, validation=validation,
        checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    model = StarModel(
        members=members,
        scaling=scaling,
        reach=reach_of(members[0], scaling, shown.flux),
        calibration=jnp.ones(len(stars.names)),
        calibration_flux=jnp.ones(len(stars.names)),
        laplace=None,
        record=Record(
            kind=kind, labels=stars.names, wave=tuple(stars.wave.tolist()),
            stars=len(shown),
            low=tuple(np.nanmin(stars.labels, axis=0).tolist()),
            high=tuple(np.nanmax(stars.labels, axis=0).tolist()),
            seed=int(jax.random.key_data(key)[-1]),
            trainings=tuple(
                training_record(jax.random.key_data(key), settings, history)
                for history in histories
            ),
        ),
    )  # fmt: skip
    if settings.laplace:
        return with_laplace(model, shown, held), histories
    return calibrated(model, key_calibration, held), histories


def _noise(stars: Spectra, settings: StarSettings) -> Numbers:
    """[star, pixel] uncertainties of which noise is made, or None where none is wanted."""
    return np.nan_to_num(stars.error) if settings.noise > 0 else None


@cache
def _loss(l2: float, noise: float) -> Any:
    def loss(network: Network, data: tuple[Batch, Any], key: Key) -> Array:
        batch, sigma = data
        key_masks, key_noise, key_size = jax.random.split(key, 3)
        x = batch.x
        if sigma is not None:
            size = noise * jax.random.uniform(key_size, (x.shape[0], 1)) ** 2
            x = x + size * sigma * jax.random.normal(key_noise, x.shape, x.dtype)
        keys = jax.random.split(key_masks, x.shape[0])
        run = lambda x, k: networks.run(network, x, network.masks(k), training=True)  # noqa: E731
        each = jax.vmap(loss_of)(jax.vmap(run)(x, keys), batch)
        return jnp.mean(each) + l2 * network.l2()

    return loss
