"""From a spectrum to labels with uncertainties: a trained network and what surrounds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core.compiled import compiled
from jaxsed.core.types import Key, PyTree
from jaxsed.io.components import Component, Flat, parse
from jaxsed.io.flat import check_sizes
from jaxsed.learn.batches import in_batches
from jaxsed.stars import networks, prediction
from jaxsed.stars.data import Spectra, StarFlag, check_grid
from jaxsed.stars.networks import Network
from jaxsed.stars.record import Labels, Reach, Record, Scaling

DRAWS = 100
"""Dropout masks that a prediction averages over."""


def _like(own: Any, attributes: Any) -> Network:
    """A network of the sizes in a file."""
    check_sizes(attributes["architecture"])
    record, pixels = own.record, len(own.record.wave)
    elements = (name for name in record.labels if name not in networks.PARAMETERS)
    chosen = zip(elements, attributes.get("windows", ()), strict=False)
    windows: Any = {name: np.isin(np.arange(pixels), own) for name, own in chosen}
    return networks.init(
        jax.random.key(0), record.kind, pixels, record.labels,
        windows=windows, architecture=parse(networks.Architecture, attributes["architecture"]),
    )  # fmt: skip


@struct.dataclass
class StarModel(
    Component,
    kind="star network",
    names={
        "members/{}": "member{}",
        "scaling": "",
        "reach": "",
        "laplace/{}": "laplace{}",
        "record/wave": "wave",
    },
):
    """``model(flux) -> labels`` for one continuum-normalised spectrum [pixel].

    `members` are the networks of a deep ensemble (one, usually).
    """

    members: Annotated[tuple[Network, ...], Flat(_like)]
    scaling: Scaling
    reach: Reach
    calibration: Annotated[Array, "label"]
    """Factor on what the network says of its uncertainty, from the validation spectra."""
    calibration_flux: Annotated[Array, "label"]
    """The same where the uncertainties of the flux are propagated besides."""
    laplace: tuple[tuple[Array, ...], ...] | None
    """Posterior covariances of the last layer's weights [label] of [input, input], one tuple per
    member, or None.  With them a prediction draws no dropout masks."""
    record: Record = struct.field(pytree_node=False)

    @compiled
    def __call__(self, flux: Array) -> Array:
        """[label] without dropout."""
        x = self.scaling.inputs(flux)
        values = [networks.run(member, x).value for member in self.members]
        return self.scaling.mean + self.scaling.std * jnp.mean(jnp.stack(values), axis=0)

    def predict(
        self,
        key: Key,
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

        def run(rows: np.ndarray) -> PyTree:
            flux = jnp.asarray(stars.flux[rows])
            found = prediction.predict_batch(self, flux, masks)
            if flux_errors:
                noise = prediction.flux_variance(self, flux, jnp.asarray(stars.error[rows]))
            else:
                noise = jnp.zeros_like(found.value)
            return *found, noise

        value, model, predictive, distance, noise = in_batches(
            run, n, min(prediction.BATCH, n), progress
        )
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

    def _counts(self) -> dict[str, Any]:
        return {"members": len(self.members), "laplace": self.laplace is not None}

    def _about(self) -> dict[str, Any]:
        first = self.members[0]
        windows = {"windows": first.windows} if isinstance(first, networks.Censored) else {}
        return {"architecture": dataclasses.asdict(first.architecture)} | windows

    def _after_loading(self) -> StarModel:
        # without computing anything: do the parts fit?
        flux = jnp.zeros((1, len(self.record.wave)))
        masks = (None,) * len(self.members)
        labels = jax.eval_shape(prediction.predict_batch, self, flux, masks).value
        if labels.shape != (1, len(self.record.labels)):
            raise ValueError(f"{labels.shape[1]} outputs for {len(self.record.labels)} labels")
        return self
