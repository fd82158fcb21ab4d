"""What a trained network carries beside its weights: units, the training's extent, a record."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.io.components import AS_ARRAY
from jaxsed.learn.distance import mahalanobis
from jaxsed.learn.record import TrainingRecord


@struct.dataclass
class Scaling:
    """What turns spectra and labels into standardised ones."""

    spectrum: Annotated[Array, "pixel"]
    """The mean flux of the training."""
    mean: Annotated[Array, "label"]
    std: Annotated[Array, "label"]

    def inputs(self, flux: Array) -> Array:
        """[pixel] flux less the mean spectrum; zero where the flux is NaN."""
        return jnp.where(jnp.isnan(flux), 0.0, flux - self.spectrum)


@struct.dataclass
class Reach:
    """Where the spectra of the training lie, as the network sees them."""

    centre: Annotated[Array, "feature"]
    """The mean of what the layer before the labels sees."""
    whiten: Annotated[Array, "feature feature"]
    """Makes them uncorrelated with unit variances."""
    limit: Annotated[Array, ""]
    """The distance that one spectrum in a thousand of the training exceeds."""

    def distance(self, features: Array) -> Array:
        """Of one spectrum, over the limit."""
        return mahalanobis(features, self.centre, self.whiten) / self.limit


@dataclasses.dataclass(frozen=True)
class Record:
    """What a network was trained on, and how well it did on the stars held out of it.

    These also stopped the training and set the calibration, so `validation` is in its favour: the
    errors on new stars are measured on stars that chose nothing.
    """

    kind: str
    labels: Annotated[tuple[str, ...], "label"]
    wave: Annotated[tuple[float, ...], AS_ARRAY, "pixel"]
    stars: int
    low: Annotated[tuple[float, ...], "label"]
    """Smallest value of the training."""
    high: Annotated[tuple[float, ...], "label"]
    seed: int
    validation: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False, compare=False)
    """Of the stars held out."""
    trainings: tuple[TrainingRecord, ...] = ()
    """Of each member; none in older files."""


class Labels(NamedTuple):
    """Of many spectra, in the labels' units; NaN where a spectrum has no usable pixel."""

    value: np.ndarray
    """[star, label] the mean of members and draws."""
    std_model: np.ndarray
    """[star, label] scatter of members and draws, or that of a Laplace layer: what the network does
    not know of itself."""
    std_predictive: np.ndarray
    """[star, label] the scatter of labels that the network has learned to expect."""
    std_flux: np.ndarray
    """[star, label] what the uncertainties of the flux do to the labels; zero if not asked for."""
    std: np.ndarray
    """[star, label] all in quadrature, the first two times the calibration."""
    distance: np.ndarray
    """[star] from the spectra of the training; beyond 1 it is unlike them."""
    flag: np.ndarray
    """[star] `StarFlag` bits."""
