"""How wrong a spectrum emulator is, against wavelength and per spectrum (Kwon et al. 2022)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed.core.types import Model, Theta

PERCENT = (68.0, 95.0, 99.0, 99.9)
"""Percentages of spectra whose error is smaller: the columns of `SpectrumErrors.percentiles`."""

MEAN_RANGE = (2400.0, 10_000.0)
"""Angstrom: the mean error of a spectrum is taken over this range (Kwon et al. 2022, figure 2)."""

QUANTILES = tuple(np.round(np.concatenate([np.arange(0.0, 1.0, 0.05), [0.99, 0.999, 1.0]]), 4))
"""Of the spectra, in order of their mean error: the entries of `SpectrumErrors.mean`."""

_BATCH = 1000


@struct.dataclass
class SpectrumErrors:
    """Distribution of the fractional error of the flux; NaN where it was not measured."""

    percentiles: Array
    """[wave, 4] |emulated / true - 1| at `PERCENT`."""
    bias: Array
    """[wave] median of emulated / true - 1."""
    mean: Array
    """[quantile] mean |emulated / true - 1| over `MEAN_RANGE` of one spectrum, at `QUANTILES`."""

    @classmethod
    def unknown(cls, n_wave: int) -> "SpectrumErrors":
        """All NaN."""
        shapes = ((n_wave, len(PERCENT)), (n_wave,), (len(QUANTILES),))
        return cls(*(jnp.full(shape, jnp.nan, float) for shape in shapes))

    @classmethod
    def of(cls, residual: np.ndarray, wave: np.ndarray) -> "SpectrumErrors":
        """From errors of ln flux [spectrum, wave].

        Raises ValueError for errors on other wavelengths, or if none is in `MEAN_RANGE`.
        """
        fraction = np.expm1(np.asarray(residual, float))
        inside = (wave >= MEAN_RANGE[0]) & (wave <= MEAN_RANGE[1])
        if fraction.ndim != 2 or fraction.shape[1] != wave.size or not inside.any():
            raise ValueError(
                f"expected errors [spectrum, {wave.size}], some of them from {MEAN_RANGE[0]:g} to "
                f"{MEAN_RANGE[1]:g} Angstrom, got shape {fraction.shape}"
            )
        size = np.abs(fraction)
        # the mean over wavelength, not over nodes, which are not evenly spaced
        step = np.gradient(wave[inside])
        mean = size[:, inside] @ (step / step.sum())
        parts = (
            np.percentile(size, PERCENT, axis=0).T,
            np.median(fraction, axis=0),
            np.quantile(mean, QUANTILES),
        )
        return cls(*(jnp.asarray(part, float) for part in parts))


def ln_flux_residuals(model: Model, thetas: Theta, ln_flux_true: np.ndarray) -> np.ndarray:
    """Emulated minus true ln flux [spectrum, wave].

    Args:
        model: a rest-frame spectrum model, see `jaxsed.rest_frame.spectrum`.
        thetas: a theta whose leaves have a leading axis [spectrum], or an array
            [spectrum, parameter].
        ln_flux_true: [spectrum, wave] on the model's wavelengths and in its unit.

    Raises:
        ValueError: shapes that do not fit.
    """
    n = len(jax.tree.leaves(thetas)[0])
    if np.shape(ln_flux_true) != (n, model.wave.size):
        raise ValueError(
            f"expected true ln fluxes [{n}, {model.wave.size}], got {np.shape(ln_flux_true)}"
        )
    run = jax.jit(jax.vmap(lambda model, theta: model(theta), in_axes=(None, 0)))
    size = min(_BATCH, n)
    residual = np.empty((n, model.wave.size))
    for start in range(0, n, size):
        # the last batch reaches back, so that all have the same shape
        part = slice(min(start, n - size), min(start, n - size) + size)
        batch = jax.tree.map(lambda leaf, part=part: leaf[part], thetas)
        residual[part] = np.asarray(run(model, batch), float) - ln_flux_true[part]
    return residual


def spectral_errors(model: Model, thetas: Theta, ln_flux_true: np.ndarray) -> SpectrumErrors:
    """Distribution of the fractional errors of a rest-frame spectrum model.

    Args:
        model, thetas, ln_flux_true: see `ln_flux_residuals`; thetas the model has not seen, 1e4
            or more, or the outer percentiles mean nothing.

    Raises:
        ValueError: shapes that do not fit.
    """
    return SpectrumErrors.of(ln_flux_residuals(model, thetas, ln_flux_true), model.wave)


def joint_jumps(
    residual: np.ndarray, wave: np.ndarray, joints: Sequence[float], neighbours: int = 8
) -> list[dict[str, float]]:
    """How much more the error changes across a joint of windows than elsewhere.

    For each joint, the root mean square over the spectra of the difference between the errors of
    the nodes on both sides (`jump`), and the median of the same between `neighbours` pairs of
    nodes to the left and to the right of it (`usual`).
    """
    change = np.sqrt(np.mean(np.diff(residual, axis=1) ** 2, axis=0))
    rows = []
    for joint in joints:
        k = int(np.searchsorted(wave, joint)) - 1
        around = np.r_[max(k - neighbours, 0) : k, k + 1 : k + 1 + neighbours]
        around = around[around < change.size]
        rows.append(
            {
                "joint": float(joint),
                "jump": float(change[k]),
                "usual": float(np.median(change[around])),
            }
        )
    return rows
