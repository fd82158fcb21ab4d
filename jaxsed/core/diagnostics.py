"""How well a posterior was sampled: one record, from the sampler to the tables.

Its fields say themselves how they are stored and what they mean, so whoever writes or shows them
goes through the fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jaxsed.core.types import Numbers

RHAT_MAX = 1.01
"""A posterior has converged below this R-hat (Vehtari+ 2021)."""

ESS_MIN = 400.0
"""And with at least this bulk and tail effective sample size."""

ALWAYS, WHERE_FOUND, NEVER = "always", "where found", "never"
"""When a field is a column of tables: in all, if any galaxy has a value, or in none."""

Record = TypeVar("Record")


class Stored(NamedTuple):
    """How a field of a record is stored and shown."""

    dtype: str
    """Type in files, as numpy writes it."""
    text: str
    """What it is, for tables."""
    column: str = ALWAYS


def stored(dtype: str, text: str, column: str = ALWAYS) -> Any:
    """A field of a record, see `Stored`."""
    return field(metadata={"stored": Stored(dtype, text, column)})


def described(record: Any) -> dict[str, Stored]:
    """How the fields of a record (or of its class) are stored, by name."""
    return {f.name: f.metadata["stored"] for f in dataclasses.fields(record)}


def stacked(records: Sequence[Record]) -> Record:
    """One record of arrays [galaxy] from those of single galaxies."""
    first: Any = records[0]
    names = [f.name for f in dataclasses.fields(first)]
    return type(first)(**{n: np.array([getattr(r, n) for r in records]) for n in names})


def rows_of(record: Record, rows: Any) -> Record:
    """A record of some galaxies of a batch: an index, or an array of them."""
    fields: Any = dataclasses.fields(record)  # type: ignore[arg-type]
    return type(record)(**{f.name: np.asarray(getattr(record, f.name))[rows] for f in fields})


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """How the posterior of a galaxy was sampled; of a batch every field is [galaxy].

    R-hat and effective sample sizes are rank-normalised (Vehtari+ 2021), and the worst of all
    coordinates and monitored functions of the parameters.
    """

    rhat_max: Any = stored("f4", "largest rank-normalised R-hat of a parameter")
    ess_bulk_min: Any = stored("f4", "smallest bulk effective sample size")
    ess_tail_min: Any = stored("f4", "smallest tail effective sample size")
    divergences: Any = stored("i8", "divergent transitions after warm-up")
    log_evidence: Any = stored("f4", "ln of the evidence, without the likelihood's constants",
                               WHERE_FOUND)  # fmt: skip
    """Not-a-number where the method does not find it."""
    log_evidence_error: Any = stored("f4", "standard error of log_evidence", WHERE_FOUND)
    importance_ess: Any = stored(
        "f4", "effective number of the importance weights of the flow's draws", WHERE_FOUND
    )
    """Not-a-number where no flow was asked.  Kept, like `khat` and `support`, where another method
    gave the draws in the end."""
    khat: Any = stored(
        "f4", "Pareto shape of these weights: below 0.7 they can be trusted", WHERE_FOUND
    )
    method: Any = stored("S32", "the method that gave the draws")
    support: Any = stored("S48", '"inside" the training set of the flow, or why not', WHERE_FOUND)
    """Empty where no flow was asked."""
    unique_fraction: Any = stored(
        "f4", "share of kept draws that differ from the one before", NEVER
    )
    run: Any = stored("i8", "which run gave the draws: 0 the first", NEVER)
    gradients: Any = stored(
        "i8", "gradients of the log density, all chains, warm-up included", NEVER
    )
    evaluations: Any = stored(
        "i8", "values of the log density without a gradient, likewise", NEVER
    )

    def passes(self) -> Numbers:
        """Whether a posterior has converged: R-hat < 1.01 and bulk and tail ESS >= 400.

        A not-a-number anywhere fails.
        """
        return (
            (np.asarray(self.rhat_max) < RHAT_MAX)
            & (np.asarray(self.ess_bulk_min) >= ESS_MIN)
            & (np.asarray(self.ess_tail_min) >= ESS_MIN)
        )


@dataclass(frozen=True, kw_only=True)
class Goodness:
    """What the data of a galaxy are, and how well the best draw fits; of n galaxies [n]."""

    chi2: Any = stored("f4", "chi2 of the best draw, of the bands with a detection")
    n_bands: Any = stored("i8", "bands in the likelihood, upper limits included")
    n_detected: Any = stored("i8", "bands with a detection: those that enter chi2")
