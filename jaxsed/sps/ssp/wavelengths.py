"""Spectra on other wavelengths and emission lines on a grid, both conserving energy.

Lnu is read as piecewise linear in wavelength between the nodes, in numpy and in double precision.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from jaxsed.core.constants import C_LIGHT


def log_wave_grid(wave_min: float, wave_max: float, step: float) -> np.ndarray:
    """[wave] Angstrom, from `wave_min`, uniform in ln wavelength with `step`, up to `wave_max`.

    The last node is the last one that does not pass `wave_max`.
    """
    if not (0 < wave_min < wave_max and 0 < step < np.log(wave_max / wave_min)):
        raise ValueError(
            f"expected 0 < wave_min < wave_max and 0 < step < ln(wave_max / wave_min); "
            f"got {wave_min}, {wave_max}, {step}"
        )
    nodes = int(np.floor(np.log(wave_max / wave_min) / step + 1e-9)) + 1
    return wave_min * np.exp(step * np.arange(nodes))


def energy_weights(wave: np.ndarray) -> np.ndarray:
    """[wave] Hz: the weights w with  integral of Lnu dnu = sum(w * Lnu)  for piecewise-linear Lnu.

    w_j is the integral of node j's hat function over frequency, c/lambda^2 dlambda.
    """
    return np.asarray(_hat_overlap(np.asarray(wave, float), np.asarray(wave, float)).sum(axis=1))


def deposit_lines(
    wave: np.ndarray, lnu: np.ndarray, line_wave: np.ndarray, line_lum: np.ndarray
) -> np.ndarray:
    """`lnu` with emission lines added, each shared between the two nodes that bracket it.

    wave: [wave] Angstrom; lnu: [..., wave] Lsun/Hz; line_wave: [line] Angstrom;
    line_lum: [..., line] Lsun.  The two shares keep the line's luminosity (the integral of Lnu
    dnu, exactly) and its mean wavelength; its rms width is at most 0.65 of the local spacing.
    """
    wave, line_wave = np.asarray(wave, float), np.asarray(line_wave, float)
    if np.any(line_wave < wave[0]) or np.any(line_wave >= wave[-1]):
        raise ValueError(
            f"lines at {line_wave.min():.0f}-{line_wave.max():.0f} Angstrom do not fit in "
            f"{wave[0]:.0f}-{wave[-1]:.0f}; leave out those outside"
        )
    weights = energy_weights(wave)
    lower = np.searchsorted(wave, line_wave, side="right") - 1
    share = (line_wave - wave[lower]) / (wave[lower + 1] - wave[lower])
    lines = np.arange(line_wave.size)
    deposit = sparse.csr_array(
        (
            np.concatenate([(1 - share) / weights[lower], share / weights[lower + 1]]),
            (np.concatenate([lines, lines]), np.concatenate([lower, lower + 1])),
        ),
        shape=(line_wave.size, wave.size),
    )
    flat = np.asarray(line_lum, float).reshape(-1, line_wave.size)
    added = (flat @ deposit).reshape(*np.shape(line_lum)[:-1], wave.size)
    return (np.asarray(lnu) + added).astype(np.asarray(lnu).dtype)


def mean_over_hats(wave: np.ndarray, lnu: np.ndarray, wave_new: np.ndarray) -> np.ndarray:
    """Spectra [..., wave] on other wavelengths, conserving energy; see `resample`.

    Raises ValueError unless the new wavelengths increase and lie within the old ones.
    """
    wave, wave_new = np.asarray(wave, float), np.asarray(wave_new, float)
    if wave_new.ndim != 1 or wave_new.size < 2 or np.any(np.diff(wave_new) <= 0):
        raise ValueError("wave_new must be an increasing vector of two or more wavelengths")
    if wave_new[0] < wave[0] * (1 - 1e-6) or wave_new[-1] > wave[-1] * (1 + 1e-6):
        raise ValueError(
            f"wave_new spans {wave_new[0]:.6g}-{wave_new[-1]:.6g} Angstrom, the grid "
            f"{wave[0]:.6g}-{wave[-1]:.6g}; stay inside it (see log_wave_grid)"
        )
    overlap = _hat_overlap(wave_new, wave)
    mean = sparse.diags_array(1.0 / overlap.sum(axis=1)) @ overlap
    flat = np.asarray(lnu).reshape(-1, wave.size).T.astype(float)
    return np.asarray((mean @ flat).T.reshape(*np.shape(lnu)[:-1], wave_new.size))


def _hat_overlap(wave_new: np.ndarray, wave_old: np.ndarray) -> sparse.csr_array:
    """[new, old] Hz: integral of hat_new * hat_old * c/lambda^2 dlambda over `wave_new`'s span.

    Both hats are linear between the nodes of the union of the two grids, where Gauss-Legendre
    with eight points is good to 1e-9 even if wavelength doubles within one step.
    """
    union = np.union1d(wave_new, wave_old)
    union = union[(union >= wave_new[0]) & (union <= wave_new[-1])]
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = 0.5 * np.diff(union)
    points = (union[:-1] + half)[:, None] + half[:, None] * nodes
    measure = half[:, None] * weights * C_LIGHT / points**2

    def hats(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lower = np.clip(np.searchsorted(wave, points[:, 3], side="right") - 1, 0, wave.size - 2)
        upper_share = (points - wave[lower][:, None]) / np.diff(wave)[lower][:, None]
        return lower, np.clip(upper_share, 0.0, 1.0)

    new_lower, new_share = hats(wave_new)
    old_lower, old_share = hats(wave_old)
    rows, columns, values = [], [], []
    for new_step, new_hat in ((0, 1 - new_share), (1, new_share)):
        for old_step, old_hat in ((0, 1 - old_share), (1, old_share)):
            rows.append(new_lower + new_step)
            columns.append(old_lower + old_step)
            values.append(np.sum(measure * new_hat * old_hat, axis=1))
    return sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(wave_new.size, wave_old.size),
    )
