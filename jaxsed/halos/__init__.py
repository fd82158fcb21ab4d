"""Halos: from the dark matter to galaxies.

`train` makes a residual network after Nadler & To (2018) that turns a box of halos into the stellar
mass function of its galaxies.
"""

from jaxsed.halos.boxes import EDGES, Box, galaxy_counts, mass_function
from jaxsed.halos.catalogue import Halos, halos, read_halos, read_table, write_halos
from jaxsed.halos.model import BoxFlag, HaloModel, MassFunctions, flag_text
from jaxsed.halos.networks import Architecture
from jaxsed.halos.training import HaloSettings, chi2, train

__all__ = [
    "EDGES",
    "Architecture",
    "Box",
    "BoxFlag",
    "HaloModel",
    "HaloSettings",
    "Halos",
    "MassFunctions",
    "chi2",
    "flag_text",
    "galaxy_counts",
    "halos",
    "mass_function",
    "read_halos",
    "read_table",
    "train",
    "write_halos",
]
