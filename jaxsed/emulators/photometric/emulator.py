"""The photometric emulator: theta -> broad-band fluxes, by a small network.

The network predicts arsinh magnitudes (Mathews et al. 2023, eq. 2) of `F10`: the fluxes, in the
observed-frame bands and at the galaxy's redshift, of 10^10 Msun formed seen from 10 pc. Mass and
distance then follow exactly,

    flux = F10 * 10^(log_mass_formed - 10) * (10 pc / d_L)^2,

so neither is learned, no error depends on them, and the cosmology may be changed afterwards as
far as the distance goes. Since F10 is of absolute magnitude about -20, the softening magnitude
`mu_0` is counted on that scale: 0 lies some 20 mag below the bands that carry light.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from jaxsed import params
from jaxsed.bands.filters import Filter, curve_difference
from jaxsed.bands.magnitudes import from_arsinh, ln_amplitude
from jaxsed.core.compiled import compiled
from jaxsed.cosmology import PLANCK15, Cosmology
from jaxsed.emulators.record import EmulatorRecord
from jaxsed.emulators.training_range import outside
from jaxsed.emulators.validation.errors import ErrorSummary
from jaxsed.io.components import Component
from jaxsed.likelihood import MassShear
from jaxsed.nets import mlp

Theta = Any  # a NamedTuple with the fields `log_mass_formed`, `redshift` and those of the features

_UNITS = {
    "output": "arsinh magnitudes of F10, the AB flux in maggies of 10^10 Msun formed at 10 pc",
    "error": "mag, emulated minus simulated",
    "error/covariance": "mag^2",
    "curves/wave": "Angstrom, vacuum",
    "features": "jaxsed.params.features of the theta's units (ages Gyr, masses Msun)",
}

LN_SPREAD = 4.0
"""Largest |ln| of sigma(theta) over that of the band."""


@struct.dataclass(eq=False)  # equal only if the same object, so that it can be hashed
class PhotometricEmulator(
    Component,
    kind="jaxsed photometric emulator",
    title="emulator",
    names={
        "record/curves/{}/name": "=band_names/{}",
        "record/curves/{}/trans": "curves/{}/transmission",
        "record/curves": "curves",
    },
):
    """A network with its scaling, range and measured error; call it on one theta.

    Made by `train_photometric` or `load`, or from parts by `PhotometricEmulator.create`.
    """

    layers: mlp.Layers
    feature_shift: Annotated[Array, "feature"]  # subtracted from the features
    feature_scale: Annotated[Array, "feature"]  # then divided by
    output_mean: Annotated[Array, "band"]  # added to the network's output [mag]
    box_low: Annotated[Array, "feature"]  # range of the training set
    box_high: Annotated[Array, "feature"]
    error: ErrorSummary  # of the arsinh magnitudes, on unseen pairs
    error_ab: ErrorSummary  # of the AB magnitudes, where the flux is far above the softening
    cosmology: Cosmology  # for the distance alone; ages are in the network's features
    feature_names: Annotated[tuple[str, ...], "feature"] = struct.field(pytree_node=False)
    band_names: Annotated[tuple[str, ...], "band"] = struct.field(pytree_node=False)
    mu_0: float = struct.field(pytree_node=False)  # softening magnitude of F10 [mag]
    activation: str = struct.field(pytree_node=False)
    record: EmulatorRecord = struct.field(pytree_node=False)
    spread: mlp.Layers | None = None
    """Network of ln of sigma(theta) over that of the band, see `spread.train_spread`."""

    transform = MassShear()
    """Of problems with this model, see `jaxsed.Problem`."""

    @classmethod
    def create(
        cls,
        layers: mlp.Layers,
        scaling: tuple[ArrayLike, ArrayLike, ArrayLike],
        names: tuple[Sequence[str], Sequence[str]],
        *,
        box: tuple[ArrayLike, ArrayLike],
        mu_0: float,
        cosmology: Cosmology = PLANCK15,
        activation: str = "gelu_tanh",
        record: EmulatorRecord | None = None,
    ) -> "PhotometricEmulator":
        """An emulator whose errors are not yet measured (NaN).

        Args:
            layers: network with an input per feature and an output per band.
            scaling: feature_shift [feature], feature_scale [feature], output_mean [band].
            names: feature names (see `jaxsed.params.features`) and band names.
            box: lowest and highest training value of each feature.
            mu_0: softening magnitude of F10 [mag].
            cosmology: turns redshifts into distances.
            activation: the network's activation.
            record: provenance and filter curves.

        Raises:
            ValueError: shapes, names or curves that do not fit each other.
        """
        feature_names, band_names = (tuple(str(name) for name in group) for group in names)
        shift, scale, mean = (jnp.asarray(part, float) for part in scaling)
        unknown = ErrorSummary.unknown(len(band_names))
        emulator = cls(
            layers=layers,
            feature_shift=shift,
            feature_scale=scale,
            output_mean=mean,
            box_low=jnp.asarray(box[0], float),
            box_high=jnp.asarray(box[1], float),
            error=unknown,
            error_ab=unknown,
            cosmology=cosmology,
            feature_names=feature_names,
            band_names=band_names,
            mu_0=float(mu_0),
            activation=activation,
            record=record or EmulatorRecord(),
        )
        emulator.check()
        return emulator

    def check(self) -> None:
        """ValueError unless shapes, names and curves fit each other."""
        mlp.check_layers(self.layers, self.activation)
        n_in, *_, n_out = mlp.layer_sizes(self.layers)
        for what, group, size in (
            ("feature", self.feature_names, n_in),
            ("band", self.band_names, n_out),
        ):
            if len(group) != size or len(set(group)) != size:
                raise ValueError(f"expected {size} different {what} names, got {group}")
        curves = self.record.curves
        if curves and len(curves) != n_out:
            raise ValueError(
                f"expected no filter curves or one per band ({n_out}), got {len(curves)}"
            )
        shapes = dict.fromkeys(("feature_shift", "feature_scale", "box_low", "box_high"), (n_in,))
        for name, shape in (shapes | {"output_mean": (n_out,)}).items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"expected {name} of shape {shape}, got {getattr(self, name).shape}"
                )
        if not bool(jnp.all(self.feature_scale > 0)):
            raise ValueError(f"expected feature_scale > 0, got {self.feature_scale}")
        if not bool(jnp.all(self.box_low < self.box_high)):
            raise ValueError("expected box_low < box_high for every feature")
        if self.spread is not None:
            mlp.check_layers(self.spread)
            own_in, *_, own_out = mlp.layer_sizes(self.spread)
            if (own_in, own_out) != (n_in, n_out):
                raise ValueError("expected a spread of the same features and bands")

    @compiled
    def __call__(self, theta: Theta) -> Array:
        """Flux [band] in maggies of one theta with `log_mass_formed` and `redshift`."""
        return from_arsinh(self.magnitudes(theta), self.mu_0, self.ln_amplitude(theta))

    @compiled
    def shape(self, theta: Theta) -> Array:
        """F10 [band]: flux [maggies] of 10^10 Msun formed at 10 pc; mass is not looked at."""
        return from_arsinh(self.magnitudes(theta), self.mu_0)

    def ln_amplitude(self, theta: Theta) -> Array:
        """ln(flux / F10): mass formed and luminosity distance."""
        return ln_amplitude(theta, self.cosmology)

    @compiled
    def magnitudes(self, theta: Theta) -> Array:
        """Arsinh magnitudes [band] of F10."""
        return self.from_features(params.features(theta, self.feature_names))

    @compiled
    def from_features(self, features: Array) -> Array:
        """Arsinh magnitudes [band] of F10 for features [feature] in `feature_names`' order."""
        x = (features - self.feature_shift) / self.feature_scale
        return mlp.apply(self.layers, x, self.activation) + self.output_mean

    @compiled
    def sigma(self, theta: Theta) -> Array:
        """Standard deviation [band] of the AB error at theta [mag]; NaN if it was not measured.

        Without a `spread` the one of the band.
        """
        if self.spread is None:
            return self.error_ab.sigma
        features = params.features(theta, self.feature_names)
        x = jnp.clip(features, self.box_low, self.box_high) - self.feature_shift
        ln_spread = mlp.apply(self.spread, x / self.feature_scale)
        return self.error_ab.sigma * jnp.exp(jnp.clip(ln_spread, -LN_SPREAD, LN_SPREAD))

    @compiled
    def inside(self, theta: Theta) -> Array:
        """Whether theta [scalar bool] lies within the ranges of the training set."""
        return ~jnp.any(self._outside(theta))

    def outside_features(self, theta: Theta) -> tuple[str, ...]:
        """Names of the features of one concrete theta that are out of range (not for `jit`)."""
        out = np.asarray(self._outside(theta))
        return tuple(n for n, is_out in zip(self.feature_names, out, strict=True) if is_out)

    @compiled
    def _outside(self, theta: Theta) -> Array:
        x = params.features(theta, self.feature_names)
        return outside(x, self.box_low, self.box_high)

    def select(self, band_names: Sequence[str]) -> "PhotometricEmulator":
        """The emulator of these bands alone, in this order: a smaller last layer.

        Raises:
            ValueError: a band the emulator does not have.
        """
        missing = [name for name in band_names if name not in self.band_names]
        if missing:
            raise ValueError(
                f"no band {', '.join(missing)} in this emulator: "
                f"it has {', '.join(self.band_names)}"
            )
        index = np.array([self.band_names.index(name) for name in band_names])
        w, b = self.layers[-1]
        curves = tuple(self.record.curves[i] for i in index) if self.record.curves else ()
        spread = self.spread
        if spread is not None:
            spread = (*spread[:-1], (spread[-1][0][:, index], spread[-1][1][index]))
        return dataclasses.replace(
            self,
            spread=spread,
            layers=(*self.layers[:-1], (w[:, index], b[index])),
            output_mean=self.output_mean[index],
            error=self.error.select(index),
            error_ab=self.error_ab.select(index),
            band_names=tuple(band_names),
            record=dataclasses.replace(self.record, curves=curves),
        )

    def find_band(self, curve: Filter, tolerance: float = 0.02) -> str | None:
        """Name of the band with (nearly) this transmission curve, or None.

        Curves are compared by `curve_difference`, so that names and scales do not matter.
        """
        differences = np.array([curve_difference(curve, own) for own in self.record.curves])
        near = differences <= tolerance  # not so for a curve without light
        if not near.any():
            return None
        return self.band_names[int(np.argmin(np.where(near, differences, np.inf)))]

    @property
    def multiplications(self) -> int:
        """Of one evaluation: the weights of the network."""
        return sum(int(np.size(layer[0])) for layer in self.layers)

    def _counts(self) -> dict[str, Any]:
        return {"sizes": list(mlp.layer_sizes(self.layers))}

    def _about(self) -> dict[str, Any]:
        return {"units": _UNITS}

    def _after_loading(self) -> "PhotometricEmulator":
        self.check()
        return self
