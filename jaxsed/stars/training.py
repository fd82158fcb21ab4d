"""Training of star networks: the loss for incomplete labels, and what is measured afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.learn import FitSettings, History, fit
from jaxsed.stars import networks
from jaxsed.stars.data import Spectra
from jaxsed.stars.model import Record, Scaling, StarModel, reach_of, with_bias
from jaxsed.stars.networks import Architecture, Network

L2 = 5e-9
"""Weight of the sum of squared weights in the loss, as in astroNN."""

VALIDATION = 0.1
"""Share of the stars that a training never sees."""


class Batch(NamedTuple):
    """Standardised stars [star, ..]."""

    x: Any
    """[star, pixel]."""
    y: Any
    """[star, label]; zero where missing."""
    variance: Any
    """[star, label] known variance of the label."""
    present: Any
    """[star, label] one, or zero where the label is missing."""


@dataclasses.dataclass(frozen=True)
class StarSettings:
    """How a network is trained."""

    architecture: Architecture | None = None
    """By default as published."""
    l2: float = L2
    members: int = 1
    """Networks of a deep ensemble (Lakshminarayanan et al. 2017)."""
    laplace: bool = False
    """Whether the last layer's weights get a posterior instead of dropout's (MacKay 1992)."""
    noise: float = 0.0
    """Flux noise added to every spectrum of the training, anew at each step, in units of its own
    uncertainty times a random factor from 0 to this."""
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
    key: Array,
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
    key_split, *keys = jax.random.split(key, settings.members + 1)
    order = np.asarray(jax.random.permutation(key_split, len(stars)))
    held_count = max(1, round(VALIDATION * len(stars)))
    shown, held = stars.take(order[held_count:]), stars.take(order[:held_count])
    scaling = scaling_of(shown)
    batch = batch_of(shown, scaling)
    training: Any = (batch, _noise(shown, settings))
    validation = (batch_of(held, scaling), _noise(held, settings))
    loss = _loss(settings.l2, settings.noise)
    members, histories = [], []
    for i, k in enumerate(keys):
        key_init, key_fit = jax.random.split(k)
        network = networks.init(
            key_init, kind, stars.wave.size, stars.names,
            windows={n: jnp.asarray(w) for n, w in stars.windows.items()},
            architecture=settings.architecture,
        )  # fmt: skip
        network, history = fit(
            key_fit, network, loss, training, settings=settings.fit,
            validation=validation, progress=progress,
            checkpoint=f"{checkpoint}.{i}" if checkpoint else None,
        )  # fmt: skip
        members.append(network)
        histories.append(history)
    model = StarModel(
        members=tuple(members),
        scaling=scaling,
        reach=reach_of(members[0], scaling, shown.flux),
        calibration=jnp.ones(len(stars.names)),
        laplace=None,
        record=Record(
            kind=kind, labels=stars.names, wave=tuple(stars.wave.tolist()),
            stars=len(shown),
            low=tuple(np.nanmin(stars.labels, axis=0).tolist()),
            high=tuple(np.nanmax(stars.labels, axis=0).tolist()),
            seed=int(jax.random.key_data(key)[-1]),
        ),
    )  # fmt: skip
    if settings.laplace:
        model = with_laplace(model, batch)
    return calibrated(model, jax.random.fold_in(key, 1), held), histories


def _noise(stars: Spectra, settings: StarSettings) -> Any:
    """[star, pixel] uncertainties of which noise is made, or None where none is wanted."""
    return np.nan_to_num(stars.error) if settings.noise > 0 else None


def scaling_of(stars: Spectra) -> Scaling:
    """Means and standard deviations of a training; a pixel that no star has gets a mean of one.

    Raises ValueError for a label with the same value in all stars.
    """
    assert stars.labels is not None
    seen = np.isfinite(stars.flux)
    count = seen.sum(axis=0)
    total = np.where(seen, stars.flux, 0.0).sum(axis=0, dtype=float)
    mean, std = np.nanmean(stars.labels, axis=0), np.nanstd(stars.labels, axis=0)
    flat = [n for n, s in zip(stars.names, std, strict=True) if not s > 0]
    if flat:
        raise ValueError(f"all stars have the same {', '.join(flat)}: leave the label out")
    spectrum = np.where(count > 0, total / np.maximum(count, 1), 1.0)
    return Scaling(*(jnp.asarray(a, jnp.float32) for a in (spectrum, mean, std)))


def batch_of(stars: Spectra, scaling: Scaling) -> Batch:
    """Standardised stars; one star whose labels are all missing has no part in the loss."""
    spectrum, mean, std = (np.asarray(a) for a in (scaling.spectrum, scaling.mean, scaling.std))
    assert stars.labels is not None and stars.label_error is not None
    present = np.isfinite(stars.labels)
    return Batch(
        x=np.nan_to_num(stars.flux - spectrum),
        y=np.where(present, (stars.labels - mean) / std, 0.0).astype(np.float32),
        variance=((stars.label_error / std) ** 2).astype(np.float32),
        present=present.astype(np.float32),
    )


def _loss(l2: float, noise: float) -> Any:
    def loss(network: Network, data: tuple[Batch, Any], key: Array) -> Array:
        batch, sigma = data
        key_masks, key_noise, key_size = jax.random.split(key, 3)
        x = batch.x
        if sigma is not None:
            size = jax.random.uniform(key_size, (x.shape[0], 1), maxval=noise)
            x = x + size * sigma * jax.random.normal(key_noise, x.shape, x.dtype)
        keys = jax.random.split(key_masks, x.shape[0])
        run = lambda x, k: networks.run(network, x, network.masks(k))  # noqa: E731
        each = jax.vmap(loss_of)(jax.vmap(run)(x, keys), batch)
        return jnp.mean(each) + l2 * network.l2()

    return loss


def with_laplace(model: StarModel, data: Batch, prior: float = 1.0) -> StarModel:
    """With Gaussian posteriors of the last layer's weights, all others being held.

    The precision of a label's weights is the sum over the stars that have it of a a^T / v, with a
    the layer's inputs and v the variance of the label, and the prior's, whose standard deviation
    is `prior` (MacKay 1992; Kristiadi et al. 2020).
    """
    run = jax.jit(jax.vmap(lambda member, x: networks.run(member, x), (None, 0)))
    found = []
    for member in model.members:
        precision: list[Any] = [0.0] * len(model.record.labels)
        for start in range(0, len(data.x), 256):
            rows = slice(start, start + 256)
            outputs = run(member, jnp.asarray(data.x[rows]))
            weight = np.asarray(
                data.present[rows] / (jnp.exp(outputs.log_variance) + data.variance[rows]), float
            )
            for j, a in enumerate(outputs.last):
                b = np.asarray(with_bias(a), float)
                precision[j] = precision[j] + (b * weight[:, j, None]).T @ b
        covariances = [np.linalg.inv(p + np.eye(len(p)) / prior**2) for p in precision]
        found.append(tuple(jnp.asarray(c, jnp.float32) for c in covariances))
    return dataclasses.replace(model, laplace=tuple(found))


def calibrated(model: StarModel, key: Array, held: Spectra) -> StarModel:
    """With uncertainties that are right on average for stars that the training never saw.

    The factor of a label is the 68.3 % quantile of |difference| / uncertainty, which is 1 for
    Gaussian differences of the size that the network says.  The known uncertainty of the labels
    themselves is part of what differs.  Fewer than 30 stars with a label leave its factor at 1.
    """
    found = model.predict(key, held)
    assert held.labels is not None and held.label_error is not None
    difference = found.value - held.labels
    factors, figures = [], {}
    for j, name in enumerate(model.record.labels):
        expected = np.hypot(found.std[:, j], held.label_error[:, j])
        pull = (np.abs(difference[:, j]) / expected)[np.isfinite(difference[:, j])]
        factors.append(float(np.quantile(pull, 0.683)) if pull.size >= 30 else 1.0)
        finite = difference[np.isfinite(difference[:, j]), j]
        figures[name] = [float(np.median(finite)), robust_scatter(finite)] if finite.size else []
    record = dataclasses.replace(model.record, validation=figures)
    return dataclasses.replace(model, calibration=jnp.asarray(factors, jnp.float32), record=record)


def robust_scatter(difference: np.ndarray) -> float:
    """1.4826 times the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(difference - np.median(difference))))


def coverage(
    value: np.ndarray, std: np.ndarray, truth: np.ndarray, shares: Sequence[float] = (0.683, 0.954)
) -> np.ndarray:
    """[share, label] of the stars whose truth lies in the Gaussian interval of each share."""
    from scipy.special import ndtri

    pull = np.abs(value - truth) / std
    seen = np.isfinite(pull)
    return np.array(
        [
            np.where(seen, pull < ndtri(0.5 + share / 2), False).sum(axis=0) / seen.sum(axis=0)
            for share in shares
        ]
    )
