"""Names for the types that signatures speak of.

What a pytree is made of is known only to the model that made it, so these are names for readers;
the shapes and units of arrays stand where the arrays are defined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from jax import Array

Key: TypeAlias = Array
"""A random key of JAX, or one per galaxy [galaxy]."""

Theta: TypeAlias = Any
"""A NamedTuple of named parameters: numbers, or arrays with leading axes."""

Prior: TypeAlias = Any
"""A theta of distributions; numbers where a parameter is known."""

Parameter: TypeAlias = Any
"""A field of a theta: a number or an array, or in a prior a distribution."""

Prediction: TypeAlias = Any
"""What a forward model says about the data: an array, or a tuple of arrays."""

Forward: TypeAlias = Callable[[Theta], Prediction]
"""A forward model, for one galaxy (star, mass function)."""

PyTree: TypeAlias = Any
"""Arrays in nested containers."""

Numbers: TypeAlias = Any
"""A number or an array, of numpy or of JAX: what functions of both take and return."""

Model: TypeAlias = Any
"""A model that is called on one example: an emulator, the physics, a network."""

Row: TypeAlias = str | int | None
"""The id of a galaxy."""
