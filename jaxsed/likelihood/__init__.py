"""What was measured of a galaxy, and how well a prediction fits it.

`Photometry`, `Spectrum` and `Joint` follow one protocol, which is all that `jaxsed.problem` asks
of data: see `Data`.  `ScalableData` is what the shear along the mass asks as well.
"""

from jaxsed.likelihood.data import Data
from jaxsed.likelihood.joint import Joint, JointPrediction
from jaxsed.likelihood.lines import LineProfiles, Lines
from jaxsed.likelihood.mass_shear import MassShear, ScalableData
from jaxsed.likelihood.photometry import (
    DETECTION,
    MAG_TO_RELATIVE,
    MISSING,
    UPPER_LIMIT,
    Photometry,
    photometry,
)
from jaxsed.likelihood.redshifted import (
    DUST_LIMIT,
    STARLIGHT_LIMIT,
    BandPrediction,
    RedshiftedPhotometry,
    WithRedshift,
)
from jaxsed.likelihood.spectrum import Spectrum, SpectrumFit, SpectrumPrediction, spectrum

__all__ = [
    "DETECTION",
    "DUST_LIMIT",
    "MAG_TO_RELATIVE",
    "MISSING",
    "STARLIGHT_LIMIT",
    "UPPER_LIMIT",
    "BandPrediction",
    "Data",
    "Joint",
    "JointPrediction",
    "LineProfiles",
    "Lines",
    "MassShear",
    "Photometry",
    "RedshiftedPhotometry",
    "ScalableData",
    "Spectrum",
    "SpectrumFit",
    "SpectrumPrediction",
    "WithRedshift",
    "photometry",
    "spectrum",
]
