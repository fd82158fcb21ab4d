"""The two-component dust screen of a galaxy: birth clouds and diffuse dust."""

from typing import Self

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from jaxsed.rest_frame.dust_curves import (
    WAVE_V,
    KriekConroyCurve,
    PowerLawCurve,
    checked_wave,
    outer,
)

#: Age below which stars sit in their birth cloud [Gyr]: 10 Myr (Charlot & Fall 2000), as in FSPS
#: (``dust_tesc = 7``), Prospector, and the published networks of PROVABGS, although the text of
#: Kwon+ (2022, section 2) has 100 Myr.
BIRTH_CLOUD_AGE_GYR = 0.01

_CURVES: dict[str, type[KriekConroyCurve] | type[PowerLawCurve]] = {
    "kriek_conroy": KriekConroyCurve,
    "power_law": PowerLawCurve,
}


@struct.dataclass
class CharlotFall:
    """Two-component screen (Charlot & Fall 2000, as in FSPS): birth clouds and diffuse dust.

    old = exp[-dust2 k(wave)],  young = old exp[-dust1 (wave / 5500)^birth_index],

    where dust1 and dust2 are the optical depths of the two screens at 5500 Angstrom.  Which stars
    are young is decided where the starlight is split, see `populations` and
    ``BIRTH_CLOUD_AGE_GYR``.
    """

    diffuse: KriekConroyCurve | PowerLawCurve
    birth_cloud: Array  # [wave] (wave / 5500)^birth_index

    @classmethod
    def build(
        cls, wave: ArrayLike, *, diffuse: str = "kriek_conroy", birth_index: float = -1.0
    ) -> Self:
        """The screens on ``wave`` [wave] (Angstrom).

        ``diffuse`` names the curve of the diffuse dust: "kriek_conroy" or "power_law".
        """
        if diffuse not in _CURVES:
            raise ValueError(
                f"diffuse must be one of {sorted(_CURVES)}, got {diffuse!r}: name one of those"
            )
        wave = checked_wave(wave)
        birth_cloud = jnp.asarray((wave / WAVE_V) ** birth_index, dtype=float)
        return cls(_CURVES[diffuse].build(wave), birth_cloud)

    def __call__(
        self, dust1: Array | float, dust2: Array | float, dust_index: Array | float
    ) -> tuple[Array, Array]:
        """Transmission of young and of old starlight, each [wave] in (0, 1]."""
        old = jnp.exp(-self.diffuse.depth(dust2, dust_index))
        return old * self.clouds(dust1), old

    def clouds(self, dust1: Array | float) -> Array:
        """Transmission of the birth clouds alone, [wave]."""
        return jnp.exp(-outer(dust1, self.birth_cloud))
