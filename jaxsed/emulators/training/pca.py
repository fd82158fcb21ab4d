"""Principal components of data that stream past: no more than one batch is ever held.

Number, mean and scatter matrix are accumulated batch by batch (Chan, Golub & LeVeque 1983, eq.
2.1) in double precision; the components are eigenvectors of the covariance.
"""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """First and second moments of the rows seen so far."""

    rows: int
    mean: np.ndarray
    """[column]"""
    scatter: np.ndarray
    """[column, column] sum of the products of deviations from the mean."""

    @classmethod
    def none(cls, width: int) -> "Moments":
        """Of no rows."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    def updated(self, new: np.ndarray) -> "Moments":
        """With more rows [row, column].

        Raises ValueError for rows of another width or with values that are not finite.
        """
        new = np.asarray(new, np.float64)
        if new.ndim != 2 or new.shape[1] != self.mean.size:
            raise ValueError(f"expected rows of {self.mean.size} columns, got {new.shape}")
        if not np.all(np.isfinite(new)):
            raise ValueError("rows with values that are not finite: leave them out")
        if not len(new):
            return self
        rows, mean = self.rows + len(new), new.mean(0)
        shift, centred = mean - self.mean, new - mean
        between = self.rows * len(new) / rows
        return Moments(
            rows,
            self.mean + shift * (len(new) / rows),
            self.scatter + centred.T @ centred + between * np.outer(shift, shift),
        )

    @property
    def covariance(self) -> np.ndarray:
        """[column, column]"""
        return self.scatter / self.rows


class Components(NamedTuple):
    """The leading principal components of some columns."""

    basis: np.ndarray
    """[component, column] orthonormal rows, the largest variance first."""
    sigma: np.ndarray
    """[component] standard deviation of the data along each."""
    residual: float
    """Root mean square per column of what the components leave."""

    def scores(self, centred: np.ndarray) -> np.ndarray:
        """Coordinates [row, component] of rows [row, column] from which the mean is taken."""
        return centred @ self.basis.T


def principal_components(moments: Moments, n: int, columns: slice = slice(None)) -> Components:
    """The `n` leading components of the columns.

    Raises ValueError if there are fewer columns, or no more rows, than components.
    """
    covariance = moments.covariance[columns, columns] if moments.rows else np.zeros((0, 0))
    if not 0 < n <= len(covariance) or moments.rows <= n:
        raise ValueError(
            f"expected fewer components than the {len(covariance)} columns and the "
            f"{moments.rows} rows, got {n}"
        )
    variance, vectors = np.linalg.eigh(covariance)
    variance = np.maximum(variance[::-1], 0.0)
    basis = vectors[:, ::-1][:, :n].T
    # the sign of an eigenvector is arbitrary: let its largest element be positive
    sign = np.sign(basis[np.arange(n), np.abs(basis).argmax(1)])
    residual = float(np.sqrt(variance[n:].sum() / len(covariance)))
    return Components(basis * sign[:, None], np.sqrt(variance[:n]), residual)
