"""How uncertainties follow magnitudes."""

import numpy as np


def trend(x: np.ndarray, y: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Medians of x [point] and of y in bins with equal numbers of points, and half of the central
    68 % of y about the trend, which may be steep within a bin."""
    parts = np.array_split(np.argsort(x), bins)
    where, middle = (np.array([np.median(v[part]) for part in parts]) for v in (x, y))
    rest = y - np.interp(x, where, middle)
    wide = [0.5 * np.ptp(np.quantile(rest[part], [0.16, 0.84])) for part in parts]
    return where, middle, np.array(wide)
