"""How far an example is from a training set."""

from __future__ import annotations

from jaxsed.core.types import Numbers


def mahalanobis(x: Numbers, centre: Numbers, whiten: Numbers) -> Numbers:
    """[..] distances (Mahalanobis 1936) of x [.., number] from the centre [number].

    `whiten` [number, number] times a difference has uncorrelated parts of unit variance.
    """
    return (((x - centre) @ whiten.T) ** 2).sum(axis=-1) ** 0.5
