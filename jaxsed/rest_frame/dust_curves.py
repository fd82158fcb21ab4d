"""Dust attenuation curves k(wave), shared by the physics and the emulators.

The optical depth is ``tau(wave) = tau_V k(wave)`` with k = 1 at 5500 Angstrom, so that
A_V = 1.086 tau_V.  What depends on the wavelength alone is computed once, when a curve is built:
a call costs one exponential per wavelength.
"""

from types import ModuleType
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from jaxsed.core.types import Numbers

#: Reference wavelength of the curves [Angstrom].
WAVE_V = 5500.0

_RV_CALZETTI = 4.05
_BUMP_CENTRE, _BUMP_WIDTH = 2175.0, 350.0  # Angstrom

BUMP_STRENGTH = (0.85, -1.9)
"""Strength E_b of the 2175 Angstrom bump at slope zero, and its change with the slope
(Kriek & Conroy 2013, eq. 3)."""


def checked_wave(wave: ArrayLike) -> np.ndarray:
    """Wavelengths [wave] in double precision; ValueError unless they are positive and 1-d."""
    wave = np.asarray(wave, dtype=float)
    if wave.ndim != 1 or wave.size == 0 or not np.all(np.isfinite(wave) & (wave > 0)):
        raise ValueError(
            f"wave must be a 1-d array of positive wavelengths in Angstrom, got shape "
            f"{wave.shape} with values {np.array2string(wave.ravel(), threshold=4)}: pass "
            "the rest-frame wavelength grid of the model"
        )
    return wave


def _calzetti(wave: Numbers, xp: ModuleType) -> Numbers:
    y = 1e4 / wave  # 1 / micron
    blue = 2.659 * (-2.156 + 1.509 * y - 0.198 * y**2 + 0.011 * y**3) + _RV_CALZETTI
    red = 2.659 * (-1.857 + 1.040 * y) + _RV_CALZETTI
    return xp.maximum(xp.where(wave < 6300.0, blue, red), 0.0) / _RV_CALZETTI


def calzetti(wave: ArrayLike) -> Array:
    """Calzetti+ 2000 (ApJ 533, 682, eq. 4) curve k'(wave)/4.05, [wave] -> [wave].

    Published from 1200 Angstrom to 2.2 micron.  As in FSPS, both formulae are continued as they
    are, the blue one rising as wave^-3 shortwards, the red one reaching zero at 3.1 micron and
    staying there.  The step of 0.6 % at 6300 Angstrom and k(5500) = 0.9995 are those of the
    paper.
    """
    return _calzetti(jnp.asarray(wave, dtype=float), jnp)


def outer(scalar: Any, vector: Array) -> Array:
    """scalar * vector, as a matrix product (see `KriekConroyCurve.depth`)."""
    scalar = jnp.asarray(scalar, dtype=vector.dtype)
    return jnp.matmul(scalar[None], vector[None], precision="highest")


@struct.dataclass
class PowerLawCurve:
    """k(wave) = (wave / 5500)^index, as in Charlot & Fall (2000)."""

    ln_wave_ratio: Array  # [wave] ln(wave / 5500)

    @classmethod
    def build(cls, wave: ArrayLike) -> Self:
        """The curve on ``wave`` [wave] (Angstrom); ValueError unless positive and 1-d."""
        return cls(jnp.asarray(np.log(checked_wave(wave) / WAVE_V), dtype=float))

    def __call__(self, dust_index: Array | float) -> Array:
        """k [wave] for this exponent."""
        return self.depth(1.0, dust_index)

    def depth(self, dust2: Any, dust_index: Any) -> Array:
        """Optical depth dust2 k [wave]."""
        return dust2 * jnp.exp(outer(dust_index, self.ln_wave_ratio))


@struct.dataclass
class KriekConroyCurve:
    """Kriek & Conroy 2013 (ApJ 775, L16, eq. 1-3): Calzetti with a free slope and a tied bump.

    An emulator stores its own, so its dust is what it was trained with.

    k(wave) = [k'(wave) + D(wave)] / 4.05 (wave / 5500)^delta,
    D(wave) = E_b (w wave)^2 / [(wave^2 - c^2)^2 + (w wave)^2],  c = 2175, w = 350 Angstrom,

    with k' of Calzetti+ 2000 (see ``calzetti`` for its continuation) and
    E_b = 0.85 - 1.9 delta.  It is the ``dust_type = 4`` of FSPS within 0.0012 (wave/5500)^delta,
    the rounding of FSPS's own coefficients.  Like both it is not renormalised:
    k(5500) = 0.9995 + 0.0014 E_b, 1.0006 at delta = 0 and 1.009 at delta = -3.  Where a negative
    bump (delta > 0.45) would make k negative, beyond 3 micron, k is zero.
    """

    curve: Array  # [wave] k'(wave) / 4.05: at slope zero without bump
    bump: Array  # [wave] D(wave) / 4.05 for E_b = 1
    ln_wave_ratio: Array  # [wave] ln(wave / 5500)
    strength: Array  # [2] E_b at slope zero, and its change with the slope

    @classmethod
    def build(cls, wave: ArrayLike) -> Self:
        """The curve on ``wave`` [wave] (Angstrom); ValueError unless positive and 1-d."""
        wave = checked_wave(wave)
        squared_width = (_BUMP_WIDTH * wave) ** 2
        bump = squared_width / ((wave**2 - _BUMP_CENTRE**2) ** 2 + squared_width)
        parts = (
            _calzetti(wave, np), bump / _RV_CALZETTI, np.log(wave / WAVE_V), BUMP_STRENGTH,
        )  # fmt: skip
        return cls(*(jnp.asarray(part, dtype=float) for part in parts))

    def __call__(self, dust_index: Array | float, *, bump: Array | float | None = None) -> Array:
        """k [wave] for slope ``dust_index`` (delta); ``bump`` overrides the tied E_b."""
        return self.depth(1.0, dust_index, bump=bump)

    def depth(self, dust2: Any, dust_index: Any, *, bump: Any = None) -> Array:
        """Optical depth dust2 k [wave].

        Written as products of small matrices: their derivatives are matrix products too, five
        times faster on a CPU than the sums over wavelength of the scalar form.
        """
        dust2, dust_index = (jnp.asarray(x, self.curve.dtype) for x in (dust2, dust_index))
        strength = self.strength[0] + self.strength[1] * dust_index if bump is None else bump
        weights, parts = jnp.stack([dust2, dust2 * strength]), jnp.stack([self.curve, self.bump])
        unsloped = jnp.maximum(jnp.matmul(weights, parts, precision="highest"), 0.0)
        return unsloped * jnp.exp(outer(dust_index, self.ln_wave_ratio))


def kriek_conroy(wave: ArrayLike, dust_index: Array | float) -> Array:
    """``KriekConroyCurve`` in one call: wave [wave] (Angstrom), slope -> k [wave]."""
    return KriekConroyCurve.build(wave)(dust_index)


def power_law(wave: ArrayLike, dust_index: Array | float) -> Array:
    """``PowerLawCurve`` in one call: wave [wave] (Angstrom), slope -> k [wave]."""
    return PowerLawCurve.build(wave)(dust_index)
