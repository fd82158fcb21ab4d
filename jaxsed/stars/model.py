"""From a spectrum to labels with uncertainties: a trained network and what surrounds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.io import files
from jaxsed.stars import networks, prediction, storage
from jaxsed.stars.data import Spectra, StarFlag, check_grid
from jaxsed.stars.networks import Network
from jaxsed.stars.record import Labels, Reach, Record, Scaling

DRAWS = 100
"""Dropout masks that a prediction averages over."""


@struct.dataclass
class StarModel:
    """``model(flux) -> labels`` for one continuum-normalised spectrum [pixel].

    `members` are the networks of a deep ensemble (one, usually).
    """

    members: tuple[Network, ...]
    scaling: Scaling
    reach: Reach
    calibration: Array
    """[label] factor on what the network says of its uncertainty, from the validation spectra."""
    calibration_flux: Array
    """[label] the same where the uncertainties of the flux are propagated besides."""
    laplace: Any
    """Posterior covariances of the last layer's weights [label] of [input, input], one tuple per
    member, or None.  With them a prediction draws no dropout masks."""
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
            draws: dropout masks of each member; 0 for the networks without dropout, as with a
                Laplace layer, whose posterior stands in for the masks.
            flux_errors: propagate the uncertainties of the flux to first order.
            progress: called with (spectra done, spectra in all).

        The calibration is that of as many draws as the validation stars were predicted with;
        `calibrated` finds another's.

        Raises ValueError for another wavelength grid or a negative number of draws.
        """
        check_grid(stars.wave, np.array(self.record.wave))
        if draws < 0:
            raise ValueError(f"expected 0 or more draws, got {draws}")
        masks = prediction.draw_masks(key, self.members, 0 if self.laplace is not None else draws)
        n = len(stars)
        size = min(prediction.BATCH, n)
        parts = []
        for start in range(0, n, size):
            rows = np.minimum(np.arange(start, start + size), n - 1)
            flux = jnp.asarray(stars.flux[rows])
            found = prediction.predict_batch(self, flux, masks)
            if flux_errors:
                noise = prediction.flux_variance(self, flux, jnp.asarray(stars.error[rows]))
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
        factor = np.asarray(self.calibration_flux if flux_errors else self.calibration)
        total = np.sqrt(factor**2 * (model + predictive) + noise)
        broken = ~np.isfinite(value + total).all(axis=1)
        flag |= np.where(broken, int(StarFlag.NUMERICAL_FAILURE), 0)
        lost = broken | ((flag & int(StarFlag.NO_PIXELS)) != 0)
        blank = lambda a: np.where(lost[:, None], np.nan, a)  # noqa: E731
        return Labels(
            blank(value), blank(np.sqrt(model)), blank(np.sqrt(predictive)), blank(np.sqrt(noise)),
            blank(total), np.where(lost, np.nan, distance), flag,
        )  # fmt: skip

    def jacobian(self, flux: Array) -> Array:
        """[label, pixel] derivatives of the labels, without dropout, of one spectrum; zero where
        the flux is NaN."""
        return jax.jacrev(self)(flux)

    def save(self, path: str | Path) -> None:
        """Write an HDF5 file that `load` reads."""
        storage.write(path, self)


def load(path: str | Path) -> StarModel:
    """The model of a file that `StarModel.save` wrote.

    Raises FileNotFoundError, and ValueError for another or a damaged file.
    """
    found = StarModel(**storage.read(path))
    with files.complete(path, storage.KIND):  # without computing anything: do the parts fit?
        flux = jnp.zeros((1, len(found.record.wave)))
        masks = (None,) * len(found.members)
        labels = jax.eval_shape(prediction.predict_batch, found, flux, masks).value
        if labels.shape != (1, len(found.record.labels)):
            raise ValueError(f"{labels.shape[1]} outputs for {len(found.record.labels)} labels")
    return found
