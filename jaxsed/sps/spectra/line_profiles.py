"""Where emission lines fall among the pixels of an observed spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxsed.core.constants import C_LIGHT_KM_S
from jaxsed.likelihood import LineProfiles
from jaxsed.sps.gas.lines import EmissionLine
from jaxsed.sps.spectra.observed import Arm

LINE_REACH = 1000.0
"""km/s; emission lines are followed this far, and five widths of a Gaussian instrument."""


def visible(line: EmissionLine, arms: Sequence[Arm], redshift_range: tuple[float, float]) -> bool:
    """Whether used pixels see a line at every redshift of the range."""
    return any(_sees(arm, wave, redshift_range) for wave in line.waves for arm in arms)


def _sees(arm: Arm, wave: float, redshift_range: tuple[float, float]) -> bool:
    """Whether two used pixels are within 200 km/s, or two pixels, of a line at either end."""
    distance = np.maximum(200 / C_LIGHT_KM_S * arm.wave, 2 * np.diff(arm.edges))[arm.used]
    used = arm.wave[arm.used]
    near = [np.abs(used - wave * (1 + z)) < distance for z in redshift_range]
    return all(np.count_nonzero(at) > 1 for at in near)


def line_profiles(
    lines: Sequence[EmissionLine], arms: Sequence[Arm], redshift_range: tuple[float, float]
) -> LineProfiles:
    """The pixels that each line may fall on, at unit flux, about the middle of a redshift range.

    Pixels count through all arms, one after the other.
    """
    middle = float(np.mean(redshift_range))
    starts = np.cumsum([0, *(arm.wave.size for arm in arms)])
    # A member in each arm that sees it: (line, centre, ratio, its pixels among all).
    members = [
        (k, wave * (1 + middle), ratio, start + own)
        for k, line in enumerate(lines)
        for wave, ratio in zip(line.waves, line.ratios, strict=True)
        for arm, start in zip(arms, starts, strict=False)
        if (own := _reach(arm, wave, redshift_range)).size
    ]
    pixels = np.unique(np.concatenate([np.zeros(0, int), *(own for *_, own in members)]))
    length = max((own.size for *_, own in members), default=0)
    first = [min(int(np.searchsorted(pixels, own[0])), pixels.size - length) for *_, own in members]
    windows = np.array([pixels[f : f + length] for f in first], int).reshape(len(members), length)
    inside = [np.isin(w, own) for w, (*_, own) in zip(windows, members, strict=True)]
    parts = zip(*map(_pixels, arms), strict=True)
    low, high, variance = (np.concatenate(part)[windows] for part in parts)
    centre, ratio = (np.array([m[k] for m in members]).reshape(len(members), 1) for k in (1, 2))
    per_width = ratio * np.array(inside).reshape(len(members), length) / (high - low)
    return LineProfiles(
        low=jnp.asarray(np.log(low / centre), dtype=float),
        high=jnp.asarray(np.log(high / centre), dtype=float),
        per_width=jnp.asarray(per_width, dtype=float),
        instrument=jnp.asarray(variance, dtype=float),
        windows=jnp.asarray(windows, dtype=int),
        pixels=jnp.asarray(pixels, dtype=int),
        places=tuple((m[0], f) for m, f in zip(members, first, strict=True)),
        n_lines=len(lines),
    )


def _pixels(arm: Arm) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[pixel] edges, and the variance of a Gaussian line-spread function in ln(wavelength)."""
    variance = np.zeros(arm.wave.size) if arm.sigma is None else (arm.sigma / arm.wave) ** 2
    return arm.edges[:-1], arm.edges[1:], variance


def _reach(arm: Arm, wave: float, redshift_range: tuple[float, float]) -> np.ndarray:
    """Indices of the pixels where a line may be, and of dark ones around them."""
    dark = 1 + max((abs(o) for o in arm.offsets), default=0)
    low, high = (wave * (1 + z) for z in redshift_range)
    reach = LINE_REACH / C_LIGHT_KM_S * arm.wave + (0.0 if arm.sigma is None else 5 * arm.sigma)
    near = (arm.wave > low - reach) & (arm.wave < high + reach)
    if not near.any():
        return np.zeros(0, int)
    first, last = np.flatnonzero(near)[[0, -1]]
    return np.arange(max(first - dark, 0), min(last + 1 + dark, arm.wave.size))
