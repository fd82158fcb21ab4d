"""The spectrum emulator: parameters -> ln L_lambda, by PCA and a network per wavelength window.

`SpectrumEmulator` is a rest-frame spectrum model (see `jaxsed.rest_frame.spectrum`). Its ln flux
is a linear map of the scores that a small network predicts (Alsing et al. 2020, section 3):

    ln L(lambda) = sum_k score_k(theta) basis_k(lambda) + offset(lambda).

All scalings of the inputs, scores and spectra are folded into the first layer, the last layer and
the basis, once and in double precision, so that a call is matrix products and activations alone.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from jaxsed import params
from jaxsed.core.compiled import compiled
from jaxsed.core.constants import C_LIGHT, MAGGIES_10PC_PER_LSUN_HZ
from jaxsed.core.types import Theta
from jaxsed.emulators.training_range import outside
from jaxsed.io.components import Component
from jaxsed.nets import mlp
from jaxsed.rest_frame.spectrum import (
    OnSpectralGrid,
    Resolution,
    SpectralGrid,
    nodes_resolution,
    spectral_grid,
)

LN_LSUN_PER_ANGSTROM = "ln(Lsun / Angstrom per Msun formed)"
"""Unit of the output, unless an emulator says otherwise."""

LN_MAGGIES_10PC = "ln(AB maggies at 10 pc per Msun formed)"
"""Unit of the published Prospector-alpha networks (inferred from their values)."""



@struct.dataclass
class SpectralWindow:
    """A network and the basis its scores multiply, on one stretch of wavelengths."""

    layers: mlp.Layers
    basis: Array
    """[score, wave]"""
    offset: Array
    """[wave]"""
    activation: str = struct.field(pytree_node=False)

    def __call__(self, x: Array) -> Array:
        """ln L [wave] for inputs x [parameter]."""
        return mlp.apply(self.layers, x, self.activation) @ self.basis + self.offset


def spectral_window(
    layers: Sequence[Sequence[ArrayLike]],
    *,
    parameters: tuple[np.ndarray, np.ndarray],
    scores: tuple[np.ndarray, np.ndarray],
    basis: np.ndarray,
    spectrum: tuple[np.ndarray, np.ndarray],
    activation: str,
) -> SpectralWindow:
    """A window from a network between standardised quantities, with the scalings folded in.

    Args:
        layers: network from standardised parameters to standardised scores.
        parameters: shift and scale [parameter]; standardised is (value - shift) / scale.
        scores: shift and scale [score].
        basis: [score, wave] of the standardised ln flux.
        spectrum: shift and scale [wave] of the ln flux.
        activation: the network's activation.

    Raises ValueError for layers that do not chain.
    """
    wide = [[np.asarray(part, np.float64) for part in layer] for layer in layers]
    mlp.check_layers(wide, activation)
    first_w, first_b, *first_extra = wide[0]
    shift, scale = parameters
    first_w = first_w / scale[:, None]
    wide[0] = [first_w, first_b - shift @ first_w, *first_extra]
    last_w, last_b = wide[-1]
    if last_w.shape[1] != len(basis):
        raise ValueError(
            f"expected a network with an output per row of the basis ({len(basis)}), "
            f"got {last_w.shape[1]}"
        )
    wide[-1] = [last_w * scores[1], last_b * scores[1]]
    return SpectralWindow(
        layers=tuple(tuple(jnp.asarray(part, float) for part in layer) for layer in wide),
        basis=jnp.asarray(basis * spectrum[1], float),
        offset=jnp.asarray((scores[0] @ basis) * spectrum[1] + spectrum[0], float),
        activation=activation,
    )


@struct.dataclass(eq=False)  # equal only if the same object, so that it can be hashed
class SpectrumEmulator(
    OnSpectralGrid,
    Component,
    kind="jaxsed spectrum emulator",
    title="spectrum emulator",
    names={
        "windows/{}/activation": "activations/{}",
        "grid/resolution/text": "resolution",
        "grid/resolution": "",
        "grid": "",
    },
):
    """Networks with their bases and range; call it on one theta.

    Made by `read_speculator`, `train_spectrum` or from parts by `SpectrumEmulator.create`.
    """

    windows: tuple[SpectralWindow, ...]
    box_low: Array  # [parameter] range of the training set; -inf where unknown
    box_high: Array  # [parameter]
    parameter_names: tuple[str, ...] = struct.field(pytree_node=False)
    grid: SpectralGrid = struct.field(pytree_node=False)
    unit: str = struct.field(pytree_node=False)

    @classmethod
    def create(
        cls,
        windows: Sequence[SpectralWindow],
        wave: ArrayLike,
        parameter_names: Sequence[str],
        *,
        box: tuple[ArrayLike, ArrayLike] | None = None,
        resolution: Resolution | None = None,
        unit: str = LN_LSUN_PER_ANGSTROM,
    ) -> "SpectrumEmulator":
        """An emulator from windows in order of wavelength.

        Args:
            windows: together they cover `wave`.
            wave: [wave] vacuum Angstrom.
            parameter_names: of the inputs.
            box: lowest and highest training value of each; default: unknown.
            resolution: default: two steps of the grid.
            unit: of the output.

        Raises:
            ValueError: shapes or names that do not fit each other.
        """
        grid = spectral_grid(wave, resolution or nodes_resolution(wave))
        names = tuple(str(name) for name in parameter_names)
        inputs = {mlp.layer_sizes(window.layers)[0] for window in windows}
        if inputs != {len(names)} or len(set(names)) != len(names):
            raise ValueError(
                f"expected a different name for each of the inputs ({inputs}), got {names}"
            )
        n_wave = sum(window.offset.size for window in windows)
        if n_wave != grid.wave.size:
            raise ValueError(f"expected {n_wave} wavelengths, got {grid.wave.size}")
        low, high = box or (np.full(len(names), -np.inf), np.full(len(names), np.inf))
        low, high = jnp.asarray(low, float), jnp.asarray(high, float)
        if low.shape != (len(names),) or high.shape != low.shape or not bool(jnp.all(low < high)):
            raise ValueError(f"expected a box of {len(names)} ranges with low < high")
        return cls(tuple(windows), low, high, names, grid, unit)

    @compiled
    def __call__(self, theta: Theta) -> Array:
        """ln L_lambda [wave] in `unit`, for one theta.

        Args:
            theta: [parameter] in the order of `parameter_names`, or a NamedTuple that has them
                (see `jaxsed.params.features`).

        Raises ValueError for an array of another length.
        """
        x = self.features(theta)
        return jnp.concatenate([window(x) for window in self.windows])

    def features(self, theta: Theta) -> Array:
        """The inputs [parameter] of one theta."""
        if hasattr(theta, "_fields"):
            return params.features(theta, self.parameter_names)
        x = jnp.asarray(theta, float)
        if x.shape != (len(self.parameter_names),):
            raise ValueError(
                f"expected one theta of shape ({len(self.parameter_names)},) "
                f"({', '.join(self.parameter_names)}), got {x.shape}: use jax.vmap for a batch"
            )
        return x

    @compiled
    def inside(self, theta: Theta) -> Array:
        """Whether theta [scalar bool] lies within the ranges of the training set."""
        return ~jnp.any(outside(self.features(theta), self.box_low, self.box_high))

    def in_lsun_per_angstrom(self) -> "SpectrumEmulator":
        """The emulator with its output in ln(Lsun/Angstrom per Msun formed).

        The factor depends on the wavelength alone, so it goes into the offset and costs nothing:
        L_lambda = f_maggies / (maggies at 10 pc of 1 Lsun/Hz) c / lambda^2.

        Raises ValueError for a unit that is not known.
        """
        if self.unit == LN_LSUN_PER_ANGSTROM:
            return self
        if self.unit != LN_MAGGIES_10PC:
            raise ValueError(f"unknown unit {self.unit!r}: expected {LN_MAGGIES_10PC!r}")
        term = np.log(C_LIGHT / MAGGIES_10PC_PER_LSUN_HZ) - 2.0 * np.log(self.wave)
        return dataclasses.replace(self.plus(term), unit=LN_LSUN_PER_ANGSTROM)

    def plus(self, term: np.ndarray) -> "SpectrumEmulator":
        """The emulator with `term` [wave] added to its output."""
        edges = np.cumsum([window.offset.size for window in self.windows])[:-1]
        windows = tuple(
            dataclasses.replace(window, offset=window.offset + jnp.asarray(part, float))
            for window, part in zip(self.windows, np.split(term, edges), strict=True)
        )
        return dataclasses.replace(self, windows=windows)

    def with_resolution(self, resolution: Resolution) -> "SpectrumEmulator":
        """The emulator with another statement of its resolution (ValueError if it does not fit)."""
        return dataclasses.replace(self, grid=spectral_grid(self.wave, resolution))

    def between(self, low: float, high: float) -> "SpectrumEmulator":
        """The emulator of the wavelengths from `low` to `high` Angstrom alone.

        Raises ValueError if fewer than two are left.
        """
        keep = (self.wave >= low) & (self.wave <= high)
        edges = np.cumsum([window.offset.size for window in self.windows])[:-1]
        windows = tuple(
            dataclasses.replace(window, basis=window.basis[:, part], offset=window.offset[part])
            for window, part in zip(self.windows, np.split(keep, edges), strict=True)
            if part.any()
        )
        resolution = Resolution(self.resolution.fwhm[keep], self.resolution.text)
        return dataclasses.replace(
            self, windows=windows, grid=spectral_grid(self.wave[keep], resolution)
        )

    def _after_loading(self) -> "SpectrumEmulator":
        for k, window in enumerate(self.windows):
            mlp.check_layers(window.layers, window.activation)
            scores = mlp.layer_sizes(window.layers)[-1]
            if window.basis.shape != (scores, window.offset.size):
                raise ValueError(f"window {k}: basis of shape {window.basis.shape}")
        return SpectrumEmulator.create(
            self.windows,
            self.wave,
            self.parameter_names,
            box=(self.box_low, self.box_high),
            resolution=self.resolution,
            unit=self.unit,
        )


def check_inputs(emulator: SpectrumEmulator, names: tuple[str, ...]) -> None:
    """Raises ValueError unless these are the inputs of the emulator, in this order."""
    if emulator.parameter_names != names:
        raise ValueError(
            f"expected an emulator of {', '.join(names)}, got one of "
            f"{', '.join(emulator.parameter_names)}"
        )
