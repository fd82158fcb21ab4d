"""Derivatives of an emulator against those of the physics, which gradient-based samplers follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

PERCENT = (50.0, 68.0, 95.0)


class GradientErrors(NamedTuple):
    """Derivatives of the magnitudes by each coordinate of the prior, emulator against physics.

    Coordinates are normal, so a derivative is a change in mag per sigma of the prior.
    """

    names: tuple[str, ...]
    """[coordinate]."""
    error: np.ndarray
    """[coordinate, percentage] |emulated - exact| at `PERCENT`, over galaxies, bands."""
    size: np.ndarray
    """[coordinate, percentage] of |exact|."""
    not_finite: int
    """Galaxies left out because the physics has no finite derivative there."""

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "percent": list(PERCENT),
            "not_finite": self.not_finite,
            "error": dict(zip(self.names, self.error.tolist(), strict=True)),
            "size": dict(zip(self.names, self.size.tolist(), strict=True)),
        }


def gradient_errors(
    emulated: Callable[[Array], Array],
    exact: Callable[[Array], Array],
    x: np.ndarray,
    names: Sequence[str],
    *,
    batch: int = 32,
) -> GradientErrors:
    """Compare derivatives of two functions of coordinates x [coordinate] -> magnitudes [band].

    Args:
        emulated: of the emulator.
        exact: of the physics.
        x: [galaxy, coordinate].
        names: [coordinate].
        batch: galaxies at a time.
    """
    both = jax.jit(lambda x: jax.lax.map(
        lambda v: (jax.jacfwd(emulated)(v), jax.jacfwd(exact)(v)), x, batch_size=batch
    ))  # fmt: skip
    a, b = (np.asarray(jacobian, float) for jacobian in both(jnp.asarray(x, float)))
    good = np.isfinite(a).all((1, 2)) & np.isfinite(b).all((1, 2))
    error, size = (
        np.percentile(np.abs(values[good]), PERCENT, axis=(0, 1)).T for values in (a - b, b)
    )
    return GradientErrors(tuple(names), error, size, int(np.count_nonzero(~good)))
