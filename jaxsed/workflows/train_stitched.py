"""Training a stitched emulator of a named galaxy model for a set of bands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxsed.bands.filters import Filter
from jaxsed.core.types import Key
from jaxsed.cosmology import PLANCK15, Cosmology
from jaxsed.emulators import StitchedEmulator, TrainSettings, train_stitched
from jaxsed.emulators.photometric.windows import WINDOWS, Windows
from jaxsed.sps.models.registry import IGM, GalaxyFamily
from jaxsed.sps.ssp.grid import SSPGrid
from jaxsed.workflows.train_photometric import emulation


def train_stitched_emulator(
    key: Key,
    family: GalaxyFamily,
    ssp: SSPGrid,
    bands: Sequence[Filter],
    *,
    windows: Windows = WINDOWS,
    settings: TrainSettings,
    cosmology: Cosmology = PLANCK15,
    birth_cloud_age: float | None = None,
    igm: str = IGM,
    folder: str | Path | None = None,
    progress: bool = True,
) -> StitchedEmulator:
    """Train an emulator of `family` for these bands in each redshift window and stitch them.

    `folder` keeps the pairs and members, from which an interrupted run goes on.

    Raises ValueError naming bands that the SSP grid does not reach, or for windows that do not
    chain.
    """

    def of(low: float, high: float):
        return emulation(
            family, ssp, bands, (low, high),
            cosmology=cosmology, birth_cloud_age=birth_cloud_age, igm=igm,
            tangents=settings.sobolev > 0,
        )  # fmt: skip

    _, target = of(*windows[0])
    return train_stitched(
        key, lambda low, high: of(low, high)[0], target,
        windows=windows, settings=settings, folder=folder, progress=progress,
    )  # fmt: skip
