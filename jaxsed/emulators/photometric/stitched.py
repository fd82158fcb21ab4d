"""Emulators of overlapping redshift windows as one (Mathews et al. 2023, section 4.3).

Fluxes are the sum of those of the members (eq. 13), weighted as `photometric.windows` says.

A call adds up all members this emulator has, most of them with weight zero: under `jax.vmap` a
branch per galaxy is no way out. With six members of width 128 on two cores a galaxy in a batch
takes 6 us that way, 1.2 us with one member, 270 us if each galaxy picks the weights of its two
members, and 560 us with `jax.lax.cond`, both of which make every galaxy carry weights of its own.
So the choice is made before the trace: `restrict` keeps the one or two members that a redshift
needs, and `groups` does so for a catalogue.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Union

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from jaxsed import params
from jaxsed.bands.filters import Filter
from jaxsed.bands.magnitudes import from_arsinh, to_arsinh
from jaxsed.core.compiled import compiled
from jaxsed.cosmology import Cosmology
from jaxsed.emulators.photometric.emulator import PhotometricEmulator, Theta
from jaxsed.emulators.photometric.windows import Windows, check_windows, window_weights
from jaxsed.emulators.record import EmulatorRecord
from jaxsed.emulators.validation.errors import ErrorSummary
from jaxsed.io.components import Component
from jaxsed.likelihood import MassShear

_SLACK = 1e-5  # of a window's width: what a member's range may be short of it


@struct.dataclass(eq=False)
class StitchedEmulator(Component, kind="jaxsed stitched emulator", title="emulator"):
    """Members over overlapping redshift windows; called like each of them.

    Made by `train_stitched` or `load`, or from members by `StitchedEmulator.create`.
    """

    members: tuple[PhotometricEmulator, ...]
    """By increasing redshift; of the same features, bands, softening and record, so that all
    restrictions to one member share their compiled code, and all to two."""
    windows: Annotated[Array, "member 2"]  # lowest and highest redshift of each
    error: ErrorSummary  # of the arsinh magnitudes, over all windows
    error_ab: ErrorSummary  # of the AB magnitudes, where the flux is far above the softening

    transform = MassShear()
    """Of problems with this model, see `jaxsed.Problem`."""

    @classmethod
    def create(cls, members: Sequence[PhotometricEmulator], windows: Windows) -> "StitchedEmulator":
        """Stitch members together; the errors are pooled from theirs, by the windows' widths.

        Raises:
            ValueError: windows with gaps, out of order, or of which three overlap; members of
                different features, bands, softening or cosmology, without a redshift, or whose
                training set does not cover their window.
        """
        windows = check_windows(windows)
        check_members(members, windows)
        first = members[0]
        training = {
            "windows": [list(window) for window in windows],
            "members": [dict(member.record.training) for member in members],
        }
        record = dataclasses.replace(first.record, training=training)
        return cls._of(
            [dataclasses.replace(member, record=record) for member in members], np.array(windows)
        )

    @classmethod
    def _of(cls, members: Sequence[PhotometricEmulator], windows: np.ndarray) -> "StitchedEmulator":
        """From members that fit each other, with their errors pooled."""
        error, error_ab = (
            ErrorSummary.pooled([getattr(m, name) for m in members], np.diff(windows)[:, 0])
            for name in ("error", "error_ab")
        )
        return cls(tuple(members), jnp.asarray(windows, float), error, error_ab)

    @compiled
    def __call__(self, theta: Theta) -> Array:
        """Flux [band] in maggies of one theta with `log_mass_formed` and `redshift`."""
        return self._sum(self._features(theta), self.ln_amplitude(theta))

    @compiled
    def shape(self, theta: Theta) -> Array:
        """F10 [band]: flux [maggies] of 10^10 Msun formed at 10 pc; mass is not looked at."""
        return self._sum(self._features(theta))

    def ln_amplitude(self, theta: Theta) -> Array:
        """ln(flux / F10): mass formed and luminosity distance."""
        return self.members[0].ln_amplitude(theta)

    @compiled
    def magnitudes(self, theta: Theta) -> Array:
        """Arsinh magnitudes [band] of F10."""
        return to_arsinh(self.shape(theta), self.mu_0)

    @compiled
    def from_features(self, features: Array) -> Array:
        """Arsinh magnitudes [band] of F10 for features [feature] in `feature_names`' order."""
        return to_arsinh(self._sum(features), self.mu_0)

    @compiled
    def sigma(self, theta: Theta) -> Array:
        """Standard deviation [band] of the AB error at theta [mag]; NaN if it was not measured.

        In an overlap the weighted mean of both: their errors may be alike.
        """
        own = jnp.stack([member.sigma(theta) for member in self.members])
        weights = self.weights(theta.redshift)[:, None]
        return jnp.sum(jnp.where(weights > 0, weights * own, 0.0), 0)

    @compiled
    def weights(self, redshift: ArrayLike) -> Array:
        """Weight [member] of each member at a redshift; beyond the windows that of the outermost.

        Mathews et al. (2023), eq. 12.
        """
        return window_weights(redshift, self.windows)

    @compiled
    def inside(self, theta: Theta) -> Array:
        """Whether theta [scalar bool] lies within the training sets of the members that count."""
        inside = jnp.stack([member.inside(theta) for member in self.members])
        return jnp.all(inside | (self.weights(theta.redshift) == 0.0))

    def outside_features(self, theta: Theta) -> tuple[str, ...]:
        """Names of the features of one concrete theta that are out of range (not for `jit`)."""
        weights = np.asarray(self.weights(theta.redshift))
        outside = {
            name
            for member, weight in zip(self.members, weights, strict=True)
            if weight > 0
            for name in member.outside_features(theta)
        }
        return tuple(name for name in self.feature_names if name in outside)

    def restrict(
        self, low: float, high: float | None = None
    ) -> Union[PhotometricEmulator, "StitchedEmulator"]:
        """The emulator for redshifts `low` to `high` alone: with the members that count there.

        A single member comes as it is; several have the errors of these members.

        Raises:
            ValueError: redshifts outside the windows, or not in order.
        """
        low, high = float(low), float(low if high is None else high)
        windows = np.asarray(self.windows, float)
        ends = windows[0, 0], windows[-1, 1]
        if not ends[0] - _SLACK <= low <= high <= ends[1] + _SLACK:
            raise ValueError(
                f"expected redshifts in order from {ends[0]:g} to {ends[1]:g}, "
                f"got {low:g} to {high:g}"
            )
        first, last = self._needed(np.array([low]), np.array([high]))[0]
        if first == last:
            return self.members[first]
        if (first, last) == (0, len(self.members) - 1):
            return self
        kept = slice(first, last + 1)
        return StitchedEmulator._of(self.members[kept], windows[kept])

    def groups(
        self, low: np.ndarray, high: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, Union[PhotometricEmulator, "StitchedEmulator"]]]:
        """Galaxies by the members they need: rows of each group and its `restrict`-ed emulator.

        Args:
            low: [galaxy] lowest redshift of each galaxy, or its redshift.
            high: [galaxy] highest redshift.

        Raises:
            ValueError: as `restrict`.
        """
        low = np.asarray(low, float)
        high = low if high is None else np.asarray(high, float)
        needed = self._needed(low, high)
        groups = []
        for pair in np.unique(needed, axis=0):
            rows = np.flatnonzero((needed == pair).all(1))
            groups.append((rows, self.restrict(low[rows].min(), high[rows].max())))
        return groups

    def _needed(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """First and last member [galaxy, 2] with a weight between two redshifts."""
        windows = np.asarray(self.windows, float)
        starts, ends = windows[1:, 0], windows[:-1, 1]
        first = (low[:, None] >= ends).sum(1)
        return np.stack([first, np.maximum((high[:, None] > starts).sum(1), first)], 1)

    def _features(self, theta: Theta) -> Array:
        return params.features(theta, self.feature_names)

    def _sum(self, features: Array, ln_amplitude: ArrayLike = 0.0) -> Array:
        """Eq. 13: the fluxes [band] of the members, weighted."""
        z = self.feature_names.index("redshift")
        weights = self.weights(features[z])
        flux = jnp.zeros(len(self.band_names))
        last = len(self.members) - 1
        for i, member in enumerate(self.members):
            low, high = self.windows[i]
            # A member that does not count stays in its window: far outside its flux might
            # overflow, and zero times infinity is no number.
            kept = jnp.clip(features[z], low if i else None, high if i < last else None)
            magnitudes = member.from_features(features.at[z].set(kept))
            flux += weights[i] * from_arsinh(magnitudes, self.mu_0, ln_amplitude)
        return flux

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Inputs of the members."""
        return self.members[0].feature_names

    @property
    def band_names(self) -> tuple[str, ...]:
        """The bands."""
        return self.members[0].band_names

    @property
    def mu_0(self) -> float:
        """Softening magnitude of F10 [mag]."""
        return self.members[0].mu_0

    @property
    def cosmology(self) -> Cosmology:
        """Turns redshifts into distances."""
        return self.members[0].cosmology

    @property
    def record(self) -> EmulatorRecord:
        """Physics, curves and citations are those of every member; the training that of all."""
        return self.members[0].record

    @property
    def box_low(self) -> Array:
        """Lowest training value [feature] of any member."""
        return jnp.min(jnp.stack([member.box_low for member in self.members]), 0)

    @property
    def box_high(self) -> Array:
        """Highest training value [feature] of any member."""
        return jnp.max(jnp.stack([member.box_high for member in self.members]), 0)

    @property
    def multiplications(self) -> int:
        """Of one evaluation: the weights of all members."""
        return sum(member.multiplications for member in self.members)

    def select(self, band_names: Sequence[str]) -> "StitchedEmulator":
        """The emulator of these bands alone, in this order.

        Raises:
            ValueError: a band the emulator does not have.
        """
        members = tuple(member.select(band_names) for member in self.members)
        index = np.array([self.band_names.index(name) for name in band_names])
        return dataclasses.replace(
            self,
            members=members,
            error=self.error.select(index),
            error_ab=self.error_ab.select(index),
        )

    def find_band(self, curve: Filter, tolerance: float = 0.02) -> str | None:
        """Name of the band with (nearly) this transmission curve, or None."""
        return self.members[0].find_band(curve, tolerance)

    def _before_saving(self) -> "StitchedEmulator":
        # the record is the same for all
        first, *others = self.members
        bare = (dataclasses.replace(member, record=EmulatorRecord()) for member in others)
        return dataclasses.replace(self, members=(first, *bare))

    def _after_loading(self) -> "StitchedEmulator":
        check_members(self.members, check_windows(np.asarray(self.windows, float).tolist()))
        n_bands = len(self.band_names)
        if (self.error.mean.size, self.error_ab.mean.size) != (n_bands, n_bands):
            raise ValueError(f"expected errors of {n_bands} bands")
        members = (dataclasses.replace(member, record=self.record) for member in self.members)
        return dataclasses.replace(self, members=tuple(members))


def check_members(
    members: Sequence[PhotometricEmulator], windows: tuple[tuple[float, float], ...]
) -> None:
    """Whether members belong together and cover their windows.

    Raises:
        ValueError: members of different features, bands, softening or cosmology, without a
            redshift, or whose training set does not cover their window.
    """
    if len(members) != len(windows):
        raise ValueError(f"expected a window per member ({len(members)}), got {len(windows)}")
    first = members[0]
    for i, (member, (low, high)) in enumerate(zip(members, windows, strict=True)):
        for name in ("feature_names", "band_names", "mu_0"):
            mine, other = getattr(first, name), getattr(member, name)
            if mine != other:
                raise ValueError(f"member {i}: expected {name} {mine}, got {other}")
        mine, other = ([float(v) for v in vars(m.cosmology).values()] for m in (first, member))
        if not np.allclose(mine, other):
            raise ValueError(f"member {i}: its cosmology is not that of member 0")
        if "redshift" not in member.feature_names:
            raise ValueError(f"expected members with a redshift, got {member.feature_names}")
        z = member.feature_names.index("redshift")
        trained, slack = (float(member.box_low[z]), float(member.box_high[z])), high - low
        if trained[0] > low + _SLACK * slack or trained[1] < high - _SLACK * slack:
            raise ValueError(
                f"member {i}: expected training on redshifts {low:g} to {high:g}, got "
                f"{trained[0]:g} to {trained[1]:g}"
            )


