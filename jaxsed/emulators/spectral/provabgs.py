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
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.scipy.special import ndtr

from jaxsed.core.compiled import compiled
from jaxsed.core.types import Theta
from jaxsed.cosmology import PLANCK15, Cosmology, age
from jaxsed.emulators.spectral.emulator import SpectrumEmulator, check_inputs
from jaxsed.emulators.spectral.published import PARAMETERS, add_in_flux
from jaxsed.emulators.validation.spectral import SpectrumErrors
from jaxsed.io import files
from jaxsed.io.components import AS_JSON, Component
from jaxsed.rest_frame.dust_curves import KriekConroyCurve
from jaxsed.rest_frame.spectrum import OnSpectralGrid, SpectralGrid

SMOOTH_INPUTS = (
    "beta_stick_1", "beta_stick_2", "beta_stick_3", "log10_gamma1", "log10_gamma2", "dust1", "age",
)  # fmt: skip
"""Features of `Smooth` that the network of the smooth component takes."""

BURST_INPUTS = ("log10_t_burst", "log10_gamma1", "log10_gamma2", "age")
"""Features of `Burst` that the network of the burst takes."""


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
class ProvabgsSpectrum(
    OnSpectralGrid,
    Component,
    kind="jaxsed PROVABGS spectrum emulator",
    title="spectrum emulator",
    names={"parameter_names": None},
):
    """A rest-frame spectrum model: call it on one `ProvabgsTheta`.

    Made by `provabgs_spectrum`, `load`, or `load_spectrum_emulator("provabgs")`.
    """

    smooth: SpectrumEmulator
    burst: SpectrumEmulator
    screen: KriekConroyCurve
    """The diffuse dust on the wavelengths of the components."""
    burst_width: Annotated[Array, ""]
    """Standard deviation of the burst in ln(lookback time)."""
    cosmology: Cosmology
    """For the age at a redshift."""
    errors: SpectrumErrors
    """On unseen galaxies."""
    record: Annotated[str, AS_JSON] = struct.field(pytree_node=False, default="{}")
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

    @compiled
    def __call__(self, theta: Theta) -> Array:
        """ln L_lambda [wave] in ln(Lsun/Angstrom per Msun formed); the mass is not looked at."""
        smooth, burst = self.inputs(theta)
        formed = ndtr((jnp.log(smooth.age) - jnp.log(burst.t_burst)) / self.burst_width)
        share = jnp.asarray(theta.f_burst, float) * formed
        light = add_in_flux(self.smooth(smooth), self.burst(burst), 1.0 - share, share)
        return light - self.screen.depth(theta.dust2, theta.dust_index)

    def inputs(self, theta: Theta) -> tuple[Smooth, Burst]:
        """What the two networks see of a theta."""
        t_age = age(theta.redshift, self.cosmology)
        return (
            Smooth(theta.beta, theta.gamma1, theta.gamma2, theta.dust1, t_age),
            Burst(theta.t_burst, theta.gamma1, theta.gamma2, t_age),
        )

    @compiled
    def inside(self, theta: Theta) -> Array:
        """Whether theta [scalar bool] lies where the networks were trained.

        The diffuse dust and the burst's share may have any value.
        """
        smooth, burst = self.inputs(theta)
        return self.smooth.inside(smooth) & self.burst.inside(burst)

    def _after_loading(self) -> "ProvabgsSpectrum":
        return provabgs_spectrum(
            self.smooth,
            self.burst,
            self.screen,
            burst_width=float(self.burst_width),
            cosmology=self.cosmology,
            errors=self.errors,
            record=self.provenance,
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
    unknown = SpectrumErrors.unknown(n)
    errors = errors or unknown
    files.check_shapes(vars(errors), {name: part.shape for name, part in vars(unknown).items()})
    if not burst_width > 0:
        raise ValueError(f"expected burst_width > 0, got {burst_width}")
    return ProvabgsSpectrum(
        smooth=smooth,
        burst=burst,
        screen=screen,
        burst_width=jnp.asarray(burst_width, float),
        cosmology=cosmology,
        errors=errors,
        record=json.dumps(dict(record or {}), sort_keys=True),
    )
