"""Stars: labels (temperature, gravity, abundances) from spectra.

`train` makes a Bayesian network after Leung & Bovy (2018), `fit_cannon` a quadratic model of the
spectrum after Ness et al. (2015), whose labels are sampled like the parameters of a galaxy.
"""

from jaxsed.learn.calibration import coverage, robust_scatter
from jaxsed.stars.autoencoder import Autoencoder, train_autoencoder
from jaxsed.stars.cannon import Cannon, fit_cannon
from jaxsed.stars.continuum import normalise
from jaxsed.stars.data import Spectra, StarFlag, flag_text, read_spectra, spectra, write_spectra
from jaxsed.stars.model import StarModel
from jaxsed.stars.networks import Architecture
from jaxsed.stars.record import Labels
from jaxsed.stars.resampling import at_rest, resample, to_resolution
from jaxsed.stars.training import StarSettings, train
from jaxsed.stars.uncertainty import calibrated, with_laplace

__all__ = [
    "Architecture",
    "Autoencoder",
    "Cannon",
    "Labels",
    "Spectra",
    "StarFlag",
    "StarModel",
    "StarSettings",
    "at_rest",
    "calibrated",
    "coverage",
    "fit_cannon",
    "flag_text",
    "normalise",
    "read_spectra",
    "resample",
    "robust_scatter",
    "spectra",
    "to_resolution",
    "train",
    "train_autoencoder",
    "with_laplace",
    "write_spectra",
]
