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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from jaxsed import params
from jaxsed.bands.filters import Filter, curve_difference
from jaxsed.bands.magnitudes import from_arsinh, ln_amplitude
from jaxsed.cosmology import PLANCK15, Cosmology
from jaxsed.emulators.record import EmulatorRecord
from jaxsed.emulators.training_range import outside
from jaxsed.emulators.validation.errors import ErrorSummary
from jaxsed.io import files
from jaxsed.likelihood import MassShear
from jaxsed.nets import mlp

Theta = Any  # a NamedTuple with the fields `log_mass_formed`, `redshift` and those of the features

KIND = "jaxsed photometric emulator"
_ARRAYS = ("feature_shift", "feature_scale", "output_mean", "box_low", "box_high")
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
class PhotometricEmulator:
    """A network with its scaling, range and measured error; call it on one theta.

    Made by `train_photometric` or `load`, or from parts by `PhotometricEmulator.create`.
    """

    layers: mlp.Layers
    feature_shift: Array  # [feature] subtracted from the features
    feature_scale: Array  # [feature] then divided by
    output_mean: Array  # [band] added to the network's output [mag]
    box_low: Array  # [feature] range of the training set
    box_high: Array  # [feature]
    error: ErrorSummary  # of the arsinh magnitudes, on unseen pairs
    error_ab: ErrorSummary  # of the AB magnitudes, where the flux is far above the softening
    cosmology: Cosmology  # for the distance alone; ages are in the network's features
    feature_names: tuple[str, ...] = struct.field(pytree_node=False)
    band_names: tuple[str, ...] = struct.field(pytree_node=False)
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
        mlp.check_layers(layers, activation)
        feature_names, band_names = (tuple(str(name) for name in group) for group in names)
        record = record or EmulatorRecord()
        sizes = mlp.layer_sizes(layers)
        for what, group, size in (
            ("feature", feature_names, sizes[0]),
            ("band", band_names, sizes[-1]),
        ):
            if len(group) != size or len(set(group)) != size:
                raise ValueError(f"expected {size} different {what} names, got {group}")
        if record.curves and len(record.curves) != sizes[-1]:
            raise ValueError(
                f"expected no filter curves or one per band ({sizes[-1]}), got {len(record.curves)}"
            )
        widths = dict.fromkeys(_ARRAYS, sizes[0]) | {"output_mean": sizes[-1]}
        parts = {
            name: jnp.asarray(part, float)
            for name, part in zip(_ARRAYS, (*scaling, *box), strict=True)
        }
        for name, part in parts.items():
            if part.shape != (widths[name],):
                raise ValueError(f"expected {name} of shape ({widths[name]},), got {part.shape}")
        if not bool(jnp.all(parts["feature_scale"] > 0)):
            raise ValueError(f"expected feature_scale > 0, got {parts['feature_scale']}")
        if not bool(jnp.all(parts["box_low"] < parts["box_high"])):
            raise ValueError("expected box_low < box_high for every feature")
        unknown = ErrorSummary.unknown(sizes[-1])
        return cls(
            layers=layers,
            feature_shift=parts["feature_shift"],
            feature_scale=parts["feature_scale"],
            output_mean=parts["output_mean"],
            box_low=parts["box_low"],
            box_high=parts["box_high"],
            error=unknown,
            error_ab=unknown,
            cosmology=cosmology,
            feature_names=feature_names,
            band_names=band_names,
            mu_0=float(mu_0),
            activation=activation,
            record=record,
        )

    def __call__(self, theta: Theta) -> Array:
        """Flux [band] in maggies of one theta with `log_mass_formed` and `redshift`."""
        return from_arsinh(self.magnitudes(theta), self.mu_0, self.ln_amplitude(theta))

    def shape(self, theta: Theta) -> Array:
        """F10 [band]: flux [maggies] of 10^10 Msun formed at 10 pc; mass is not looked at."""
        return from_arsinh(self.magnitudes(theta), self.mu_0)

    def ln_amplitude(self, theta: Theta) -> Array:
        """ln(flux / F10): mass formed and luminosity distance."""
        return ln_amplitude(theta, self.cosmology)

    def magnitudes(self, theta: Theta) -> Array:
        """Arsinh magnitudes [band] of F10."""
        return self.from_features(params.features(theta, self.feature_names))

    def from_features(self, features: Array) -> Array:
        """Arsinh magnitudes [band] of F10 for features [feature] in `feature_names`' order."""
        x = (features - self.feature_shift) / self.feature_scale
        return mlp.apply(self.layers, x, self.activation) + self.output_mean

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

    def inside(self, theta: Theta) -> Array:
        """Whether theta [scalar bool] lies within the ranges of the training set."""
        return ~jnp.any(self._outside(theta))

    def outside_features(self, theta: Theta) -> tuple[str, ...]:
        """Names of the features of one concrete theta that are out of range (not for `jit`)."""
        out = np.asarray(self._outside(theta))
        return tuple(n for n, is_out in zip(self.feature_names, out, strict=True) if is_out)

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

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Named arrays and attributes (JSON types) that `from_arrays` reads."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        for i, layer in enumerate(self.layers):
            arrays |= {f"layers/{i}/{j}": part for j, part in enumerate(layer)}
        for i, layer in enumerate(self.spread or ()):
            arrays |= {f"spread/{i}/{j}": part for j, part in enumerate(layer)}
        for name in ("error", "error_ab"):
            arrays |= {f"{name}/{k}": v for k, v in vars(getattr(self, name)).items()}
        for i, curve in enumerate(self.record.curves):
            arrays |= {f"curves/{i}/wave": curve.wave, f"curves/{i}/transmission": curve.trans}
        record = {k: v for k, v in vars(self.record).items() if k != "curves"}
        return arrays, {
            "feature_names": self.feature_names,
            "band_names": self.band_names,
            "mu_0": self.mu_0,
            "activation": self.activation,
            "sizes": mlp.layer_sizes(self.layers),
            "cosmology": {k: float(v) for k, v in vars(self.cosmology).items()},
            "record": record,
            "units": _UNITS,
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
    ) -> "PhotometricEmulator":
        """Inverse of `to_arrays`; KeyError, TypeError, ValueError or IndexError if it is not."""
        record = attributes["record"]
        names, n_layers = attributes["band_names"], len(attributes["sizes"]) - 1
        n_bands = len(names)
        curves = tuple(
            Filter(names[i], arrays[f"curves/{i}/wave"], arrays[f"curves/{i}/transmission"])
            for i in range(n_bands if "curves/0/wave" in arrays else 0)
        )
        record = EmulatorRecord(
            record["physics"], record["ssp"], curves, record["training"],
            tuple(record["citations"]), record.get("birth_cloud_age"), record.get("igm"),
        )  # fmt: skip
        layers = _layers(arrays, "layers")
        if len(layers) != n_layers:
            raise ValueError(f"{len(layers)} of {n_layers} layers")
        spread = _layers(arrays, "spread") or None
        if spread is not None:
            mlp.check_layers(spread)
        emulator = cls.create(
            layers,
            (arrays["feature_shift"], arrays["feature_scale"], arrays["output_mean"]),
            (attributes["feature_names"], attributes["band_names"]),
            box=(arrays["box_low"], arrays["box_high"]),
            mu_0=attributes["mu_0"],
            cosmology=Cosmology(**attributes["cosmology"]),
            activation=attributes["activation"],
            record=record,
        )
        if spread is not None and mlp.layer_sizes(spread)[:: len(spread)] != (
            mlp.layer_sizes(layers)[:: len(layers)]
        ):
            raise ValueError("expected a spread of the same features and bands")
        error, error_ab = (
            ErrorSummary.from_arrays(
                {k: arrays[f"{name}/{k}"] for k in vars(emulator.error)}, n_bands
            )
            for name in ("error", "error_ab")
        )
        return dataclasses.replace(emulator, error=error, error_ab=error_ab, spread=spread)

    def save(self, path: str | Path) -> None:
        """Write to an HDF5 file, with names, units, ranges, errors and a checksum."""
        files.write(path, KIND, *self.to_arrays())

    @classmethod
    def load(cls, path: str | Path) -> "PhotometricEmulator":
        """Read from an HDF5 file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not an emulator's file, or a damaged one; the message names the file.
        """
        arrays, attributes = files.read(path, KIND)
        with files.complete(path, "emulator"):
            return cls.from_arrays(arrays, attributes)


def _layers(arrays: Mapping[str, np.ndarray], stem: str) -> mlp.Layers:
    """The layers stored as ``stem/i/j``; empty if there are none."""
    layers: list[tuple[Array, ...]] = []
    while f"{stem}/{len(layers)}/0" in arrays:
        names = (f"{stem}/{len(layers)}/{j}" for j in range(4))
        layers.append(tuple(jnp.asarray(arrays[n], float) for n in names if n in arrays))
    return tuple(layers)
