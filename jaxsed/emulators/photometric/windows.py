"""Overlapping redshift windows and their weights (Mathews et al. 2023, section 4.3).

Across the overlap of windows i and i+1 the angle

    theta_i(z) = (pi / 2) (z - z_L,i+1) / (z_H,i - z_L,i+1)

(eq. 11) runs from 0 to pi/2; the upper window's weight is sin^2 theta_i, the lower one's
cos^2 theta_i (eq. 12), and fluxes are the weighted sum (eq. 13). Weights sum to one and have a
continuous derivative, and at most two of them are not zero.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

Windows = Sequence[tuple[float, float]]

WINDOWS = (
    (0.0, 2.25), (1.75, 4.25), (3.75, 6.25), (5.75, 8.25), (7.75, 10.25), (9.75, 12.0),
)  # fmt: skip
"""Redshift 0 to 12 in six windows: Mathews et al. (2023), table 2."""


def window_weights(redshift: ArrayLike, windows: ArrayLike) -> Array:
    """Weight [window] at a redshift of windows [window, 2]: Mathews et al. (2023), eqs. 11, 12."""
    edges = jnp.asarray(windows, float)
    starts, ends = edges[1:, 0], edges[:-1, 1]
    fraction = jnp.clip((jnp.asarray(redshift, float) - starts) / (ends - starts), 0.0, 1.0)
    # sin^2 and cos^2 of theta without cancellation, and exactly 0 and 1 at the ends
    rising = jnp.sin(0.5 * jnp.pi * fraction) ** 2
    falling = jnp.sin(0.5 * jnp.pi * (1.0 - fraction)) ** 2
    one = jnp.ones(1)
    return jnp.concatenate([one, rising]) * jnp.concatenate([falling, one])


def check_windows(windows: Windows) -> tuple[tuple[float, float], ...]:
    """The windows as floats.

    Raises:
        ValueError: windows with gaps, out of order, or of which three overlap.
    """
    windows = tuple((float(low), float(high)) for low, high in windows)
    if not windows or not all(low < high for low, high in windows):
        raise ValueError(f"expected windows (low, high) with low < high, got {windows}")
    for i, ((low, high), (next_low, next_high)) in enumerate(
        zip(windows[:-1], windows[1:], strict=True)
    ):
        if not (low < next_low and high < next_high):
            raise ValueError(f"expected windows by increasing redshift, got {windows}")
        if not next_low < high:
            raise ValueError(f"windows {i} and {i + 1} do not overlap: {high:g}, {next_low:g}")
        if i and next_low < windows[i - 1][1]:
            raise ValueError(f"three windows overlap at redshift {next_low:g}")
    return windows
