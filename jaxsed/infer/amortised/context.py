"""What a flow is told of a galaxy: its photometry and redshift as standardised features."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from jaxsed.bands.magnitudes import POGSON
from jaxsed.likelihood import Photometry
from jaxsed.problem import Problem


@struct.dataclass
class PhotometricContext:
    """Features of a `Problem` with photometry.

    Per band the arsinh magnitude, the ln of the total uncertainty, and whether the band is there;
    then the redshift, where it is known.  Bands that are missing have zeros, the mean of those
    that are there, so one flow serves any subset.
    """

    softening: Array
    """[band] maggies below which arsinh magnitudes are linear."""
    shift: Array
    """[2, band] mean of arsinh magnitudes and of ln uncertainties; `scale` their deviations."""
    scale: Array
    redshift_shift: Array
    redshift_scale: Array
    free_redshift: bool = struct.field(pytree_node=False, default=False)
    bands: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)
    """Positions of the problem's bands among those of the flow; None if they are the same."""

    @property
    def size(self) -> int:
        """Number of features."""
        return 3 * self.softening.shape[-1] + (not self.free_redshift)

    def __call__(self, problem: Problem) -> Array:
        """[feature] of one galaxy."""
        raw, there = self.look(problem)
        values = jnp.where(there, (raw - self.shift) / self.scale, 0.0)
        parts = [values.ravel(), there.astype(values.dtype)]
        if not self.free_redshift:
            z = (problem.prior.redshift - self.redshift_shift) / self.redshift_scale
            parts.append(jnp.reshape(z, 1))
        return jnp.concatenate(parts)

    def look(self, problem: Problem) -> tuple[Array, Array]:
        """`raw` [2, band] in the bands of the flow, and whether each is there [band]."""
        data: Any = problem.data
        if self.bands is not None:
            empty = jnp.zeros_like(self.softening)
            at = jnp.asarray(self.bands)
            data = data.replace(
                scaled=empty.at[at].set(data.scaled),
                inverse_sigma=empty.at[at].set(data.inverse_sigma),
            )
        return self.raw(data), data.inverse_sigma > 0

    def raw(self, data: Photometry) -> Array:
        """[2, ..., band] arsinh magnitudes and ln uncertainties over the softening, unscaled."""
        sigma = 1.0 / jnp.maximum(data.inverse_sigma, 1e-30)
        flux = data.scaled * sigma
        return jnp.stack(
            [
                -POGSON * jnp.arcsinh(flux / (2.0 * self.softening)),
                jnp.log(sigma / self.softening),
            ]
        )

    def fitted(self, data: Photometry, redshift: Array) -> PhotometricContext:
        """Scaled by the galaxies of a batch [galaxy, band]."""
        there = (data.inverse_sigma > 0)[:, None, :]
        raw = jnp.where(there, jnp.swapaxes(self.raw(data), 0, 1), jnp.nan)
        changed: Any = self
        return changed.replace(
            shift=jnp.nanmean(raw, axis=0),
            scale=jnp.nanstd(raw, axis=0) + 1e-6,
            redshift_shift=jnp.mean(redshift),
            redshift_scale=jnp.std(redshift) + 1e-6,
        )


def photometric_context(softening: ArrayLike, *, free_redshift: bool = False) -> PhotometricContext:
    """Features that are not scaled yet; see `PhotometricContext.fitted`."""
    n = jnp.shape(softening)[-1]
    return PhotometricContext(
        softening=jnp.asarray(softening, dtype=float),
        shift=jnp.zeros((2, n)),
        scale=jnp.ones((2, n)),
        redshift_shift=jnp.zeros(()),
        redshift_scale=jnp.ones(()),
        free_redshift=free_redshift,
    )
