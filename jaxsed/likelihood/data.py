"""The protocol that data follow."""

from __future__ import annotations

from typing import Protocol

from jax import Array

from jaxsed.core.types import Prediction


class Data(Protocol):
    """Data of one galaxy, a pytree whose leaves may have a leading galaxy axis.

    A *prediction* is what the forward model returns: an array or a tuple of arrays.
    """

    def residuals(self, prediction: Prediction) -> Array:
        """[residual] independent residuals whose squares sum to chi-square."""

    def log_likelihood(self, prediction: Prediction) -> Array:
        """Log likelihood up to a constant."""

    def kept(self, prediction: Prediction) -> Array | None:
        """[band] the part of the prediction that a sampler keeps of every draw, if any."""
