"""What a chunk of galaxies gives: the contract between the catalogue loop and an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from jaxsed.catalog import flags
from jaxsed.catalog.tables import Observations
from jaxsed.core.constants import PERCENTILES
from jaxsed.core.diagnostics import Diagnostics, Goodness, described, rows_of

Array = NDArray[Any]


class ChunkResult(NamedTuple):
    """Posteriors of n galaxies.  Draws are [n, chain, draw] or [n, chain, draw, k].

    Every chunk of a run has the same names and, but for n, the same shapes.
    """

    theta: Mapping[str, Array]  # the sampled parameters
    derived: Mapping[str, Array]  # what follows from them
    log_density: Array  # [n, chain, draw]
    goodness: Goodness
    diagnostics: Diagnostics
    flag: Array  # [n], bits of Flag that only the engine can know
    predicted_flux: Array  # [n, 3, B] maggies: 16, 50, 84 % of the posterior prediction
    per_galaxy: Mapping[str, Array] = {}  # [n, ...], such as the time axis of a history

    def rows(self, rows: Any) -> ChunkResult:
        """Some of the galaxies."""

        def cut(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {name: np.asarray(each)[rows] for name, each in value.items()}
            if isinstance(value, Goodness | Diagnostics):
                return rows_of(value, rows)
            return np.asarray(value)[rows]

        return ChunkResult(*map(cut, self))


Keep = Callable[[Array, Callable[[Array], ChunkResult]], Any]
"""``keep(finished, result)``: positions in the chunk, and their results as a function of them."""


class Engine(Protocol):
    """Fits one chunk.

    It may have `provenance`, a mapping of names to text or numbers; `notes`, lines about what was
    left out; ``prepare(redshift)``, called once with the redshifts of all galaxies; and
    `in_parts`, which if true says that it takes an argument ``keep`` (see `Keep`) and calls it from
    time to time with the galaxies that are finished, so that a killed run loses few of them.
    """

    def __call__(
        self, ids: Sequence[str], observations: Observations, seeds: NDArray[np.uint32]
    ) -> ChunkResult:
        """Fit n galaxies; `seeds` [n, 2] are the words of a key for each
        (``jax.random.wrap_key_data``), which depend on the galaxy's id alone.
        """
        ...


def thin(draws: Array, per_galaxy: int) -> Array:
    """Keep about `per_galaxy` draws of [n, chain, draw, ...], evenly spaced in every chain."""
    chains, length = draws.shape[1:3]
    keep = min(length, max(1, per_galaxy // chains))
    return draws[:, :, np.linspace(0, length - 1, keep).round().astype(int)]


def percentiles(draws: Array) -> NDArray[np.float32]:
    """16th, 50th, 84th percentile over chains and draws: [n, chain, draw, ...] -> [n, 3, ...]."""
    flat = draws.reshape(draws.shape[0], -1, *draws.shape[3:])
    return np.moveaxis(np.percentile(flat, PERCENTILES, axis=1), 0, 1).astype(np.float32)


def datasets(result: ChunkResult, row_flag: Array, draws: int) -> dict[str, Array]:
    """What is kept of a chunk, by name, each with the galaxies first.

    `row_flag` [n] are the bits that the table gave; `draws` per galaxy are kept.
    """
    theta = {name: np.asarray(value) for name, value in result.theta.items()}
    derived = {k: np.asarray(v) for k, v in result.derived.items() if k not in theta}
    every = {**theta, **derived}
    log_density = np.asarray(result.log_density)
    n = len(log_density)
    finite = np.isfinite(log_density).reshape(n, -1).all(axis=1)
    for value in every.values():
        finite &= np.isfinite(value).reshape(n, -1).all(axis=1)

    flag = np.asarray(row_flag).astype(np.int64) | np.asarray(result.flag).astype(np.int64)
    goodness = result.goodness
    flag |= flags.from_diagnostics(
        result.diagnostics, chi2=goodness.chi2, n_detected=goodness.n_detected, finite=finite
    )
    tree: dict[str, Array] = {
        "draws/log_density": thin(log_density, draws).astype(np.float32),
        "predicted_flux": np.asarray(result.predicted_flux, np.float32),
        "diagnostics/flag": flag,
    }
    for record in (goodness, result.diagnostics):
        for name, how in described(record).items():
            tree[f"diagnostics/{name}"] = np.asarray(getattr(record, name)).astype(how.dtype)
    for group, values in (("theta", theta), ("derived", derived)):
        for name, value in values.items():
            tree[f"draws/{group}/{name}"] = thin(value, draws).astype(np.float32)
    for name, value in every.items():
        tree[f"summary/{name}"] = percentiles(value)
    for name, value in result.per_galaxy.items():
        tree[f"per_galaxy/{name}"] = np.asarray(value, np.float32)
    return tree
