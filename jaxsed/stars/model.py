"""From a spectrum to labels with uncertainties: a trained network and what surrounds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxsed import files
from jaxsed.stars import networks
from jaxsed.stars.data import Spectra, StarFlag, check_grid
from jaxsed.stars.networks import Architecture, Network, Outputs

KIND = "star network"

DRAWS = 100
"""Dropout masks that a prediction averages over."""

BATCH = 256
"""Spectra in a compiled call."""


@struct.dataclass
class Scaling:
    """What turns spectra and labels into standardised ones."""

    spectrum: Array
    """[pixel] the mean flux of the training."""
    mean: Array
    """[label]."""
    std: Array
    """[label]."""

    def inputs(self, flux: Array) -> Array:
        """[pixel] flux less the mean spectrum; zero where the flux is NaN."""
        return jnp.where(jnp.isnan(flux), 0.0, flux - self.spectrum)


@struct.dataclass
class Reach:
    """Where the spectra of the training lie, as the network sees them."""

    centre: Array
    """[feature] the mean of what the layer before the labels sees."""
    whiten: Array
    """[feature, feature] makes them uncorrelated with unit variances."""
    limit: Array
    """The distance that one spectrum in a thousand of the training exceeds."""

    def distance(self, features: Array) -> Array:
        """Of one spectrum, over the limit."""
        return jnp.sqrt(jnp.sum((self.whiten @ (features - self.centre)) ** 2)) / self.limit


@dataclasses.dataclass(frozen=True)
class Record:
    """What a network was trained on, and how well it did on spectra it never saw."""

    kind: str
    labels: tuple[str, ...]
    wave: tuple[float, ...]
    stars: int
    low: tuple[float, ...]
    """[label] smallest value of the training."""
    high: tuple[float, ...]
    seed: int
    validation: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False, compare=False)


class Labels(NamedTuple):
    """Of many spectra, in the labels' units; NaN where a spectrum has no usable pixel."""

    value: np.ndarray
    """[star, label] the mean of the draws."""
    std_model: np.ndarray
    """[star, label] scatter of the draws: what the network does not know of itself."""
    std_predictive: np.ndarray
    """[star, label] the scatter of labels that the network has learned to expect."""
    std_flux: np.ndarray
    """[star, label] what the uncertainties of the flux do to the labels; zero if not asked for."""
    std: np.ndarray
    """[star, label] all of them in quadrature, times the calibration."""
    distance: np.ndarray
    """[star] from the spectra of the training; beyond 1 it is unlike them."""
    flag: np.ndarray
    """[star] `StarFlag` bits."""


@struct.dataclass
class StarModel:
    """``model(flux) -> labels`` for one continuum-normalised spectrum [pixel].

    `members` are the networks of a deep ensemble (one, usually).
    """

    members: tuple[Network, ...]
    scaling: Scaling
    reach: Reach
    calibration: Array
    """[label] factor on the total uncertainty, from the validation spectra."""
    laplace: Any
    """Posterior covariances of the last layer's weights [label] of [input, input], one tuple per
    member, or None."""
    record: Record = struct.field(pytree_node=False)

    def __call__(self, flux: Array) -> Array:
        """[label] without dropout."""
        x = self.scaling.inputs(flux)
        values = [networks.run(member, x).value for member in self.members]
        return self.scaling.mean + self.scaling.std * jnp.mean(jnp.stack(values), axis=0)

    def predict(
        self,
        key: Array,
        stars: Spectra,
        *,
        draws: int = DRAWS,
        flux_errors: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Labels:
        """Labels of many spectra.

        A draw is one network, with the same dropout masks for all spectra, so a spectrum's labels
        do not depend on which others are predicted with it.

        Args:
            key: random key of the masks.
            stars: the spectra.
            draws: dropout masks of each member.
            flux_errors: propagate the uncertainties of the flux to first order.
            progress: called with (spectra done, spectra in all).

        Raises ValueError for another wavelength grid.
        """
        check_grid(stars.wave, np.array(self.record.wave))
        masks = _draw_masks(key, self.members, draws)
        n = len(stars)
        size = min(BATCH, n)
        parts = []
        for start in range(0, n, size):
            rows = np.minimum(np.arange(start, start + size), n - 1)
            flux = jnp.asarray(stars.flux[rows])
            found = _predict_batch(self, flux, masks)
            if flux_errors:
                noise = _flux_variance(self, flux, jnp.asarray(stars.error[rows]))
            else:
                noise = jnp.zeros_like(found.value)
            kept = min(size, n - start)
            parts.append([np.asarray(a)[:kept] for a in (*found, noise)])
            if progress:
                progress(start + kept, n)
        columns = [np.concatenate(a) for a in zip(*parts, strict=True)]
        value, model, predictive, distance, noise = columns
        flag = stars.flag.copy()
        flag |= np.where(distance > 1, int(StarFlag.OUTSIDE_TRAINING), 0)
        total = np.asarray(self.calibration) * np.sqrt(model + predictive + noise)
        broken = ~np.isfinite(value + total).all(axis=1)
        flag |= np.where(broken, int(StarFlag.NUMERICAL_FAILURE), 0)
        lost = broken | ((flag & int(StarFlag.NO_PIXELS)) != 0)
        blank = lambda a: np.where(lost[:, None], np.nan, a)  # noqa: E731
        return Labels(
            blank(value), blank(np.sqrt(model)), blank(np.sqrt(predictive)), blank(np.sqrt(noise)),
            blank(total), np.where(lost, np.nan, distance), flag,
        )  # fmt: skip

    def jacobian(self, flux: Array) -> Array:
        """[label, pixel] derivatives of the labels, without dropout, of one spectrum."""
        return jax.jacrev(self)(flux)

    def save(self, path: str | Path) -> None:
        """Write an HDF5 file that `load` reads."""
        arrays: dict[str, Any] = {"calibration": self.calibration}
        for i, member in enumerate(self.members):
            arrays[f"member{i}"] = ravel_pytree(member)[0]
            for j, covariance in enumerate((self.laplace or {i: ()})[i]):
                arrays[f"laplace{i}/{j}"] = covariance
        for part in (self.scaling, self.reach):
            arrays |= {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
        first = self.members[0]
        record = dataclasses.asdict(self.record)
        arrays["wave"] = np.array(record.pop("wave"))
        attributes: dict[str, Any] = {
            "record": record,
            "members": len(self.members),
            "architecture": dataclasses.asdict(first.architecture),
            "laplace": self.laplace is not None,
        }
        if isinstance(first, networks.Censored):
            attributes["windows"] = [list(window) for window in first.windows]
        files.write(path, KIND, arrays, attributes)


def load(path: str | Path) -> StarModel:
    """The model of a file that `StarModel.save` wrote.

    Raises FileNotFoundError, and ValueError for another or a damaged file.
    """
    arrays, attributes = files.read(path, KIND)
    record = attributes["record"]
    for name in ("labels", "low", "high"):
        record[name] = tuple(record[name])
    record = Record(wave=tuple(arrays["wave"].tolist()), **record)
    pixels = len(record.wave)
    stored = attributes["architecture"].items()
    given: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in stored}
    sizes = Architecture(**given)
    elements = [name for name in record.labels if name not in networks.PARAMETERS]
    windows = {
        name: jnp.zeros(pixels).at[np.array(chosen)].set(1.0)
        for name, chosen in zip(elements, attributes.get("windows", ()), strict=False)
    }
    blank = networks.init(
        jax.random.key(0), record.kind, pixels, record.labels, windows=windows, architecture=sizes
    )
    _, restore = ravel_pytree(blank)
    members = tuple(
        restore(jnp.asarray(arrays[f"member{i}"])) for i in range(attributes["members"])
    )
    laplace = None
    if attributes["laplace"]:
        laplace = tuple(
            tuple(jnp.asarray(arrays[f"laplace{i}/{j}"]) for j in range(len(record.labels)))
            for i in range(len(members))
        )
    part = lambda kind: kind(  # noqa: E731
        **{f.name: jnp.asarray(arrays[f.name]) for f in dataclasses.fields(kind)}
    )
    return StarModel(
        members, part(Scaling), part(Reach), jnp.asarray(arrays["calibration"]), laplace, record
    )


class _Found(NamedTuple):
    """[star, label] values and variances in the labels' units, and [star] distances."""

    value: Array
    model: Array
    predictive: Array
    distance: Array


def _draw_masks(key: Array, members: tuple[Network, ...], draws: int) -> Any:
    """Masks of each draw of each member; None where a network has no dropout."""
    keys = jax.random.split(key, len(members))
    return tuple(
        _masks_of(member, jax.random.split(k, draws))
        for member, k in zip(members, keys, strict=True)
    )


@jax.jit
def _masks_of(member: Network, keys: Array) -> Any:
    return jax.vmap(member.masks)(keys)


@jax.jit
def _predict_batch(model: StarModel, flux: Array, masks: Any) -> _Found:
    x = jax.vmap(model.scaling.inputs)(flux)
    means, seconds, variances = [], [], []
    for i, (member, mask) in enumerate(zip(model.members, masks, strict=True)):
        first = jax.vmap(member.first)(x)
        if mask is None:
            found = jax.vmap(lambda s, m=member: m.rest(s, None))(first)
            mean, second, log_variance = found.value, found.value**2, found.log_variance
        else:
            mean, second, log_variance = _averaged(member, first, mask)
        if model.laplace is not None:
            second = second + _laplace_variance(member, first, model.laplace[i])
        means.append(mean)
        seconds.append(second)
        variances.append(jnp.exp(log_variance))
    mean = jnp.mean(jnp.stack(means), axis=0)
    spread = jnp.mean(jnp.stack(seconds), axis=0) - mean**2
    scale = model.scaling.std**2
    head = jax.vmap(lambda x: _features(model.members[0], x))(x)
    return _Found(
        model.scaling.mean + model.scaling.std * mean,
        scale * jnp.maximum(spread, 0.0),
        scale * jnp.mean(jnp.stack(variances), axis=0),
        jax.vmap(model.reach.distance)(head),
    )


def _averaged(member: Network, first: Any, masks: Any) -> tuple[Array, Array, Array]:
    """Means over draws of the values, their squares, and the log variances."""

    def add(total: Any, mask: Any) -> tuple[Any, None]:
        found = jax.vmap(lambda s: member.rest(s, mask))(first)
        new = (found.value - begin, (found.value - begin) ** 2, found.log_variance)
        return tuple(a + b for a, b in zip(total, new, strict=True)), None

    # Squares of differences from a first guess do not lose the variance in 32 bits.
    guess: Outputs = jax.vmap(lambda s: member.rest(s, None))(first)
    begin = guess.value
    n = jax.tree.leaves(masks)[0].shape[0]
    total, _ = jax.lax.scan(add, (jnp.zeros_like(begin),) * 3, masks)
    mean, square, log_variance = (a / n for a in total)
    value = begin + mean
    return value, value**2 + square - mean**2, log_variance


def _laplace_variance(member: Network, first: Any, covariances: tuple[Array, ...]) -> Array:
    """[star, label] variance of the values by that of the last layer's weights."""
    last = jax.vmap(lambda s: member.rest(s, None))(first).last
    out = [
        jnp.einsum("si,ij,sj->s", with_bias(a), c, with_bias(a))
        for a, c in zip(last, covariances, strict=True)
    ]
    return jnp.stack(out, axis=1)


def with_bias(a: Array) -> Array:
    """[.., input + 1] a layer's inputs and a one for its bias."""
    return jnp.concatenate([a, jnp.ones_like(a[..., :1])], axis=-1)


def _features(member: Network, x: Array) -> Array:
    """[feature] what the layer before the labels of the whole spectrum sees."""
    return member.rest(member.first(x), None).last[0]


@jax.jit
def _flux_variance(model: StarModel, flux: Array, error: Array) -> Array:
    """[star, label] sum over pixels of (derivative times uncertainty) squared."""

    def one(pair: tuple[Array, Array]) -> Array:
        slope = model.jacobian(pair[0])
        return jnp.sum(jnp.where(jnp.isnan(pair[1]), 0.0, slope * pair[1]) ** 2, axis=1)

    return jax.lax.map(one, (flux, error), batch_size=32)


def reach_of(member: Network, scaling: Scaling, flux: np.ndarray) -> Reach:
    """Where the spectra [star, pixel] of a training lie."""
    inputs = jax.jit(jax.vmap(lambda f: _features(member, scaling.inputs(f))))
    h = np.concatenate(
        [np.asarray(inputs(jnp.asarray(part)), float) for part in _batches(flux, BATCH)]
    )
    centre = h.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(h.T)))
    # Directions that no spectrum of the training took count as if a thousandth of the usual.
    floor = 1e-3 * max(values.mean(), 1e-12)
    whiten = vectors.T / np.sqrt(np.maximum(values, floor))[:, None]
    distance = np.sqrt((((h - centre) @ whiten.T) ** 2).sum(axis=1))
    return Reach(
        jnp.asarray(centre, jnp.float32), jnp.asarray(whiten, jnp.float32),
        jnp.asarray(np.quantile(distance, 0.999), jnp.float32),
    )  # fmt: skip


def _batches(a: np.ndarray, size: int) -> list[np.ndarray]:
    return [a[i : i + size] for i in range(0, len(a), size)]
