"""Our PROVABGS rest-frame spectrum emulator: two networks, and what need not be learned.

    L = [(1 - f S) L_smooth + f S L_burst] exp[-dust2 k(lambda; dust_index)]

per Msun formed (Kwon et al. 2022, section 2). The networks give the smooth component and the
burst before the diffuse dust, each per unit of its own mass. The diffuse dust, the burst's share
f and the part S of the burst that happened before the galaxy was seen are exact, so no error
depends on them.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.scipy.special import ndtr

from jaxsed.cosmology import PLANCK15, Cosmology, age
from jaxsed.emulators.spectral.emulator import SpectrumEmulator, check_inputs
from jaxsed.emulators.spectral.published import PARAMETERS, add_in_flux
from jaxsed.emulators.validation.spectral import SpectrumErrors
from jaxsed.io import files
from jaxsed.rest_frame.dust_curves import KriekConroyCurve
from jaxsed.rest_frame.spectrum import OnSpectralGrid, SpectralGrid

SMOOTH_INPUTS = (
    "beta_stick_1", "beta_stick_2", "beta_stick_3", "log10_gamma1", "log10_gamma2", "dust1", "age",
)  # fmt: skip
"""Features of `Smooth` that the network of the smooth component takes."""

BURST_INPUTS = ("log10_t_burst", "log10_gamma1", "log10_gamma2", "age")
"""Features of `Burst` that the network of the burst takes."""

KIND = "jaxsed PROVABGS spectrum emulator"


class Smooth(NamedTuple):
    """What the smooth component depends on, before diffuse dust."""

    beta: Any
    gamma1: Any
    gamma2: Any
    dust1: Any
    age: Any
    """Of the universe at the galaxy's redshift, Gyr."""


class Burst(NamedTuple):
    """What the burst depends on, before diffuse dust."""

    t_burst: Any
    gamma1: Any
    gamma2: Any
    age: Any


@struct.dataclass(eq=False)  # equal only if the same object, so that it can be hashed
class ProvabgsSpectrum(OnSpectralGrid):
    """A rest-frame spectrum model: call it on one `ProvabgsTheta`.

    Made by `provabgs_spectrum`, `load`, or `load_spectrum_emulator("provabgs")`.
    """

    smooth: SpectrumEmulator
    burst: SpectrumEmulator
    screen: KriekConroyCurve
    """The diffuse dust on the wavelengths of the components."""
    burst_width: Array
    """Standard deviation of the burst in ln(lookback time)."""
    cosmology: Cosmology
    """For the age at a redshift."""
    errors: SpectrumErrors
    """On unseen galaxies."""
    record: str = struct.field(pytree_node=False, default="{}")
    """How it was made, as JSON text; see `provenance`."""
    parameter_names: tuple[str, ...] = struct.field(pytree_node=False, default=PARAMETERS)

    @property
    def grid(self) -> SpectralGrid:  # type: ignore[override]  # a frozen field elsewhere
        """Wavelengths and resolution, those of both components."""
        return self.smooth.grid

    @property
    def unit(self) -> str:
        """Unit of the output."""
        return self.smooth.unit

    @property
    def provenance(self) -> dict[str, Any]:
        """How it was made."""
        return dict(json.loads(self.record))

    def __call__(self, theta: Any) -> Array:
        """ln L_lambda [wave] in ln(Lsun/Angstrom per Msun formed); the mass is not looked at."""
        smooth, burst = self.inputs(theta)
        formed = ndtr((jnp.log(smooth.age) - jnp.log(burst.t_burst)) / self.burst_width)
        share = jnp.asarray(theta.f_burst, float) * formed
        light = add_in_flux(self.smooth(smooth), self.burst(burst), 1.0 - share, share)
        return light - self.screen.depth(theta.dust2, theta.dust_index)

    def inputs(self, theta: Any) -> tuple[Smooth, Burst]:
        """What the two networks see of a theta."""
        t_age = age(theta.redshift, self.cosmology)
        return (
            Smooth(theta.beta, theta.gamma1, theta.gamma2, theta.dust1, t_age),
            Burst(theta.t_burst, theta.gamma1, theta.gamma2, t_age),
        )

    def inside(self, theta: Any) -> Array:
        """Whether theta [scalar bool] lies where the networks were trained.

        The diffuse dust and the burst's share may have any value.
        """
        smooth, burst = self.inputs(theta)
        return self.smooth.inside(smooth) & self.burst.inside(burst)

    def save(self, path: str | Path) -> None:
        """Write to an HDF5 file with names, units, ranges, errors and a checksum."""
        arrays: dict[str, Any] = {"burst_width": self.burst_width}
        attributes: dict[str, Any] = {
            "cosmology": {k: float(v) for k, v in vars(self.cosmology).items()},
            "record": self.provenance,
        }
        for name in ("smooth", "burst"):
            own, attributes[name] = getattr(self, name).to_arrays()
            arrays |= {f"{name}/{k}": v for k, v in own.items()}
        for name in ("screen", "errors"):
            arrays |= {f"{name}/{k}": v for k, v in vars(getattr(self, name)).items()}
        files.write(path, KIND, arrays, attributes)

    @classmethod
    def load(cls, path: str | Path) -> "ProvabgsSpectrum":
        """Read from an HDF5 file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not such a file, or a damaged one; the message names the file.
        """
        arrays, attributes = files.read(path, KIND)
        with files.complete(path, "spectrum emulator"):
            parts = {
                name: {
                    key.removeprefix(f"{name}/"): values
                    for key, values in arrays.items()
                    if key.startswith(f"{name}/")
                }
                for name in ("smooth", "burst", "screen", "errors")
            }
            unknown = SpectrumErrors.unknown(parts["smooth"]["wave"].size)
            files.check_shapes(parts["errors"], {k: v.shape for k, v in vars(unknown).items()})
            return provabgs_spectrum(
                SpectrumEmulator.from_arrays(parts["smooth"], attributes["smooth"]),
                SpectrumEmulator.from_arrays(parts["burst"], attributes["burst"]),
                KriekConroyCurve(**{k: jnp.asarray(v, float) for k, v in parts["screen"].items()}),
                burst_width=float(arrays["burst_width"]),
                cosmology=Cosmology(**attributes["cosmology"]),
                errors=SpectrumErrors(
                    **{k: jnp.asarray(v, float) for k, v in parts["errors"].items()}
                ),
                record=attributes["record"],
            )

    def with_errors(self, errors: SpectrumErrors) -> "ProvabgsSpectrum":
        """The emulator with the errors that were measured."""
        return dataclasses.replace(self, errors=errors)

    def with_record(self, record: Mapping[str, Any]) -> "ProvabgsSpectrum":
        """The emulator with another account of how it was made, JSON types."""
        return dataclasses.replace(self, record=json.dumps(dict(record), sort_keys=True))


def provabgs_spectrum(
    smooth: SpectrumEmulator,
    burst: SpectrumEmulator,
    screen: KriekConroyCurve,
    *,
    burst_width: float,
    cosmology: Cosmology = PLANCK15,
    errors: SpectrumErrors | None = None,
    record: Mapping[str, Any] | None = None,
) -> ProvabgsSpectrum:
    """Put the parts of a galaxy together.

    Args:
        smooth: emulator of the inputs `SMOOTH_INPUTS`.
        burst: emulator of the inputs `BURST_INPUTS`, on the same wavelengths.
        screen: the diffuse dust on these wavelengths.
        burst_width: standard deviation of the burst in ln(lookback time).
        cosmology: for the age at a redshift.
        errors: as measured; default: unknown.
        record: how the parts were made, JSON types.

    Raises:
        ValueError: parts that do not fit each other.
    """
    check_inputs(smooth, SMOOTH_INPUTS)
    check_inputs(burst, BURST_INPUTS)
    if smooth.grid != burst.grid or smooth.unit != burst.unit:
        raise ValueError("expected both components on the same wavelengths and in the same unit")
    n = smooth.wave.size
    shapes = {name: np.shape(part) for name, part in vars(screen).items()}
    if shapes != {"curve": (n,), "bump": (n,), "ln_wave_ratio": (n,), "strength": (2,)}:
        raise ValueError(f"expected a screen on {n} wavelengths, got arrays of shapes {shapes}")
    if not burst_width > 0:
        raise ValueError(f"expected burst_width > 0, got {burst_width}")
    return ProvabgsSpectrum(
        smooth=smooth,
        burst=burst,
        screen=screen,
        burst_width=jnp.asarray(burst_width, float),
        cosmology=cosmology,
        errors=errors or SpectrumErrors.unknown(n),
        record=json.dumps(dict(record or {}), sort_keys=True),
    )
