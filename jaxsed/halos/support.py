"""Whether boxes are like those of a training: how many halos they have, and of which kinds."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np

from jaxsed.halos.boxes import Features
from jaxsed.halos.catalogue import Halos
from jaxsed.learn.distance import mahalanobis

RIDGE = 1e-3
"""Variance added to that of every number a box is described by."""


@dataclasses.dataclass(frozen=True)
class Support:
    """Where the boxes of a training lie."""

    fewest: int
    """Halos in a box."""
    most: int
    centre: Annotated[tuple[float, ...], "number"]
    """Of `description`."""
    whiten: Annotated[tuple[tuple[float, ...], ...], "number number"]
    """See `jaxsed.learn.distance.mahalanobis`."""
    farthest: float
    """Largest distance of a box of the training."""

    @classmethod
    def of(cls, halos: Halos, features: Features) -> Support:
        """Of the boxes of a training that have halos."""
        count = np.bincount(halos.box, minlength=len(halos))
        found = description(halos, features)[count > 0]
        centre = found.mean(axis=0)
        covariance = np.atleast_2d(np.cov(found, rowvar=False)) if len(found) > 1 else 0.0
        ridge = RIDGE * np.eye(centre.size)
        whiten = np.linalg.inv(np.linalg.cholesky(covariance + ridge))
        farthest = mahalanobis(found, centre, whiten).max()
        return cls(
            int(count.min()), int(count.max()), tuple(centre.tolist()),
            tuple(map(tuple, whiten.tolist())), float(farthest),
        )  # fmt: skip

    def outside(self, halos: Halos) -> np.ndarray:
        """[box] whether it has more or fewer halos than any box of the training."""
        count = np.bincount(halos.box, minlength=len(halos))
        return (count > 0) & ((count < self.fewest) | (count > self.most))

    def strange(self, halos: Halos, features: Features) -> np.ndarray:
        """[box] whether its halos are of other kinds, or otherwise mixed, than in any box of the
        training."""
        count = np.bincount(halos.box, minlength=len(halos))
        found = description(halos, features)
        distance = mahalanobis(found, np.array(self.centre), np.array(self.whiten))
        return (count > 0) & (distance > self.farthest)


def description(halos: Halos, features: Features) -> np.ndarray:
    """[box, 1 + 2 feature] ln(1 + number of halos), means and deviations of their features."""
    n = len(halos)
    count = np.bincount(halos.box, minlength=n)
    values = features.of_halos(halos).astype(float)
    total = np.stack([np.bincount(halos.box, column, n) for column in values.T], axis=1)
    squares = np.stack([np.bincount(halos.box, column**2, n) for column in values.T], axis=1)
    each = np.maximum(count, 1)[:, None]
    mean = total / each
    deviation = np.sqrt(np.maximum(squares / each - mean**2, 0.0))
    return np.concatenate([np.log1p(count)[:, None], mean, deviation], axis=1)
