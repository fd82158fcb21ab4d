"""Published models from the files that their authors distribute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxsed.cosmology import PLANCK13, Cosmology
from jaxsed.emulators.spectral.published import (
    BURST_BOX,
    BURST_INPUTS,
    NMF_BOX,
    NMF_INPUTS,
    PublishedProvabgs,
    published_provabgs,
    published_resolution,
)
from jaxsed.emulators.spectral.speculator import read_speculator
from jaxsed.sps.models.provabgs import read_bases


def load_published_provabgs(
    nmf: Sequence[str | Path],
    burst: Sequence[str | Path],
    *,
    cosmology: Cosmology = PLANCK13,
) -> PublishedProvabgs:
    """The published PROVABGS networks (Kwon et al. 2022) as one galaxy model.

    The burst networks are those with the inputs log10 age, log10 metallicity, dust2 and
    dust_index.

    Args:
        nmf: files of the NMF networks, one per wavelength window, in any order.
        burst: files of the burst networks.
        cosmology: of the ages; the published training set has Planck 2013.

    Raises:
        FileNotFoundError: no such file.
        ValueError: files that are not such networks; the message names them.
    """
    parts = []
    for paths, names, box in ((nmf, NMF_INPUTS, NMF_BOX), (burst, BURST_INPUTS, BURST_BOX)):
        emulator = read_speculator(paths, parameter_names=names, box=box)
        resolution = published_resolution(emulator.wave)
        parts.append(emulator.with_resolution(resolution))
    time, _, metallicity = read_bases()
    return published_provabgs(parts[0], parts[1], (time, metallicity), cosmology=cosmology)
