"""The protocol that data follow."""

from __future__ import annotations

from typing import Any, Protocol

from jax import Array


class Data(Protocol):
    """Data of one galaxy, a pytree whose leaves may have a leading galaxy axis.

    A *prediction* is what the forward model returns: an array or a tuple of arrays.
    """

    def residuals(self, prediction: Any) -> Array:
        """[residual] independent residuals whose squares sum to chi-square."""

    def log_likelihood(self, prediction: Any) -> Array:
        """Log likelihood up to a constant."""

    def kept(self, prediction: Any) -> Array | None:
        """[band] the part of the prediction that a sampler keeps of every draw, if any."""
