"""A spectrum and photometry of the same galaxy."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import struct
from jax import Array

from jaxsed.likelihood.photometry import Photometry
from jaxsed.likelihood.spectrum import Spectrum, SpectrumPrediction


class JointPrediction(NamedTuple):
    """What a model says about both."""

    photometry: Array
    """[band] maggies of the whole galaxy."""
    spectrum: SpectrumPrediction
    """Of the part of it that the aperture sees."""


@struct.dataclass
class Joint:
    """Independent photometry and spectrum: log likelihoods add.

    The marginalised lines of the spectrum are not part of the bands: where lines are strong, the
    bands need an error floor of the size of their share.
    """

    photometry: Photometry
    spectrum: Spectrum

    def residuals(self, prediction: JointPrediction) -> Array:
        """[band + pixel + coefficient] residuals of both."""
        of_bands = self.photometry.residuals(prediction.photometry)
        return jnp.concatenate([of_bands, self.spectrum.residuals(prediction.spectrum)])

    def log_likelihood(self, prediction: JointPrediction) -> Array:
        """Sum of both log likelihoods."""
        of_bands = self.photometry.log_likelihood(prediction.photometry)
        return of_bands + self.spectrum.log_likelihood(prediction.spectrum)

    def normal_equation(self, prediction: JointPrediction) -> tuple[Array, Array]:
        """Sum of both normal equations."""
        bands = self.photometry.normal_equation(prediction.photometry)
        pixels = self.spectrum.normal_equation(prediction.spectrum)
        return bands[0] + pixels[0], bands[1] + pixels[1]

    def rescaled(self, prediction: JointPrediction, factor: Array) -> JointPrediction:
        """Both for a galaxy of `factor` times the mass."""
        return JointPrediction(
            self.photometry.rescaled(prediction.photometry, factor),
            self.spectrum.rescaled(prediction.spectrum, factor),
        )

    def kept(self, prediction: JointPrediction) -> Array:
        """[band] the fluxes of the bands."""
        return self.photometry.kept(prediction.photometry)
