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

    def normal_equation(self, prediction: Any) -> tuple[Array, Array]:
        """``m C^-1 m`` and ``m C^-1 d`` of model and data: the second over the first is the
        factor on the model that fits best."""

    def rescaled(self, prediction: Any, factor: Array) -> Any:
        """The prediction for a galaxy of `factor` times the mass."""

    def kept(self, prediction: Any) -> Array | None:
        """[band] the part of the prediction that a sampler keeps of every draw, if any."""
