"""Halos: from the dark matter to galaxies.

`train` makes a residual network after Nadler & To (2018) that turns a box of halos into the stellar
mass function of its galaxies, `fit_baseline` what it must beat, `fit_forest` a forest from the
properties of single halos; `connection_problem` is the posterior of the relation of stellar to halo
mass given an observed mass function.
"""

from jaxsed.halos.baselines import Baseline, fit_baseline
from jaxsed.halos.boxes import EDGES, Box, galaxy_counts, mass_function
from jaxsed.halos.catalogue import Halos, halos, read_halos, read_table, write_halos
from jaxsed.halos.connection import connection_problem, galaxy_halo, read_smf, universemachine
from jaxsed.halos.forest import HaloForest, fit_forest
from jaxsed.halos.model import BoxFlag, HaloModel, MassFunctions, flag_text
from jaxsed.halos.networks import Architecture
from jaxsed.halos.training import HaloSettings, chi2, train

__all__ = [
    "EDGES",
    "Architecture",
    "Baseline",
    "Box",
    "BoxFlag",
    "HaloForest",
    "HaloModel",
    "HaloSettings",
    "Halos",
    "MassFunctions",
    "chi2",
    "connection_problem",
    "fit_baseline",
    "fit_forest",
    "flag_text",
    "galaxy_counts",
    "galaxy_halo",
    "halos",
    "mass_function",
    "read_halos",
    "read_smf",
    "read_table",
    "train",
    "universemachine",
    "write_halos",
]
