"""What a network must beat: the mean, a ridge regression and a random forest on the boxes' voxels.

All see a box as histograms of its voxels: how many hold how many halos, and how the voxels' means
of each feature are distributed.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.core.types import Numbers
from jaxsed.halos.boxes import (
    EDGES,
    Features,
    check_edges,
    galaxy_counts,
    pack,
    paint,
    slots_of,
)
from jaxsed.halos.catalogue import V_PEAK_CUT, Halos
from jaxsed.halos.model import MassFunctions, Record, mass_functions
from jaxsed.halos.support import Support
from jaxsed.halos.trees import Trees, of_sklearn
from jaxsed.io.components import Component

KINDS = ("mean", "ridge", "forest")

VOXELS = 25

QUANTILES = 24
"""Bins of a feature's histogram, as many halos of the training in each."""

FOLDS = 5
"""Of the cross-validation that gives uncertainties, and the strength of the ridge."""

CHUNK = 32
"""Boxes painted at once."""

TREES = 500

LEAF = 3
"""Boxes in a leaf at least."""

ANSCOMBE = 0.375
"""Added to a number before its square root is taken: the root of a Poisson number then has a
variance of nearly 1/4 (Anscombe 1948)."""

FEWEST = 0.5
"""A predicted mean is at least so many galaxies over the number of boxes of the training."""


@dataclasses.dataclass(frozen=True)
class Baseline(Component, kind="halo baseline", names={"trees/depth": "depth"}):
    """``predict(halos) -> mass functions``."""

    cuts: Annotated[np.ndarray, "feature cut"]
    """Between the bins of the voxels' means, standardised."""
    log_mean: Annotated[np.ndarray, "bin"]
    """ln of the mean number of galaxies in a box of the training."""
    excess: Annotated[np.ndarray, "bin"]
    """Variance beyond that of a Poisson law, over the squared number."""
    weights: Annotated[np.ndarray, "weight bin"] | None
    """[1 + number, bin] of the ridge: offsets first."""
    root_variance: Annotated[np.ndarray, "bin"] | None
    """Of the roots of unseen boxes about those of the ridge."""
    trees: Trees | None
    record: Record

    def predict(self, halos: Halos, *, progress: Any = None) -> MassFunctions:
        """Mass functions of all boxes of a catalogue.

        Raises ValueError for boxes of another size, and for features that the halos lack.
        """
        self.record.check(halos)
        halos = halos.above(self.record.v_peak_min)
        x = histograms(halos, self.record, self.cuts)
        # none in the training does not mean none for certain
        count = np.maximum(self.counts(x), FEWEST / self.record.boxes)
        if progress:
            progress(len(halos), len(halos))
        std = np.sqrt(count + self.excess * count**2)
        return mass_functions(self.record, halos, count, std)

    def counts(self, x: np.ndarray) -> np.ndarray:
        """[box, bin] galaxies expected in boxes with these histograms [box, number]."""
        if self.trees is not None:
            return self.trees.predict(x).astype(float)
        if self.weights is not None:
            # numbers of galaxies and of voxels have the same variance everywhere as square roots
            root = self.weights[0] + np.sqrt(x) @ self.weights[1:]
            return mean_of_roots(root, self.root_variance)
        return np.tile(np.exp(self.log_mean), (len(x), 1))

    def _after_loading(self) -> Baseline:
        if self.weights is not None and self.root_variance is None:
            raise ValueError(
                "a ridge of an earlier version, whose numbers are biased: fit it again"
            )
        self.record.check_parts()
        if len(self.cuts) != len(self.record.features.names):
            raise ValueError(f"expected cuts [feature, cut], got shape {self.cuts.shape}")
        numbers = _numbers(self.cuts)
        if self.weights is not None and len(self.weights) != 1 + numbers:
            raise ValueError(f"expected {1 + numbers} weights, got {len(self.weights)}")
        if self.trees is not None:
            self.trees.check(numbers)
        return self


def fit_baseline(
    halos: Halos,
    kind: str,
    *,
    edges: Numbers = EDGES,
    v_peak_min: float = V_PEAK_CUT,
    features: Numbers = None,
    seed: int = 0,
) -> Baseline:
    """Learn from boxes whose galaxies are known.

    Args:
        halos: boxes with stellar masses.
        kind: "mean", "ridge" (on square roots, its strength by cross-validation) or "forest".
        edges: of the bins in log10 stellar mass.
        v_peak_min: km/s; halos below it are left out.
        features: by default all of them.
        seed: of the forest.

    Raises ValueError for an unknown kind, halos without stellar masses and fewer boxes than twice
    the folds of the cross-validation.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: choose one of {', '.join(KINDS)}")
    if len(halos) < 2 * FOLDS:
        raise ValueError(f"expected at least {2 * FOLDS} boxes to learn from, got {len(halos)}")
    edges = tuple(check_edges(edges).tolist())
    n = galaxy_counts(halos, edges)
    halos = halos.above(v_peak_min)
    known = Features.of(halos, features)
    record = Record(
        kind=kind, edges=edges, features=known, box_size=halos.box_size, hubble=halos.hubble,
        v_peak_min=v_peak_min, support=Support.of(halos, known),
        slots=slots_of(halos), boxes=len(halos), seed=seed,
    )  # fmt: skip
    shares = np.linspace(0, 1, QUANTILES + 1)[1:-1]
    cuts = np.quantile(known.of_halos(halos), shares, axis=0).T
    log_mean = np.log(np.maximum(n.mean(axis=0), 1e-9))
    blank = Baseline(cuts, log_mean, np.zeros(n.shape[1]), None, None, None, record)
    x = histograms(halos, record, cuts)
    if kind == "ridge":
        found, unseen = _ridge(blank, x, n)
    elif kind == "forest":
        found, unseen = _forest(blank, x, n, seed)
    else:
        found, unseen = blank, blank.counts(x)
    beyond = ((n - unseen) ** 2 - unseen).mean(axis=0) / np.maximum((unseen**2).mean(axis=0), 1e-9)
    return dataclasses.replace(found, excess=np.maximum(beyond, 0.0))


def histograms(halos: Halos, record: Record, cuts: np.ndarray) -> np.ndarray:
    """[box, number] voxels with 1, 2, 3 and more halos, then voxels in each bin of each feature."""
    n, (features, inner) = len(halos), cuts.shape
    out = np.zeros((n, _numbers(cuts)))
    for start in range(0, n, CHUNK):
        rows = np.minimum(np.arange(start, start + CHUNK), n - 1)
        box = pack(halos.take(rows), record.features, record.slots)
        field = np.asarray(_painted(box)).reshape(CHUNK, VOXELS**3, -1)
        for row, voxels in zip(rows[: n - start], field, strict=False):
            voxels = voxels[voxels[:, 0] > 0]
            several = [np.sum(voxels[:, 0] == 1), np.sum(voxels[:, 0] == 2)]
            parts = [np.array([*several, len(voxels) - sum(several)])]
            for j in range(features):
                place = np.searchsorted(cuts[j], voxels[:, 1 + j])
                parts.append(np.bincount(place, minlength=inner + 1))
            out[row] = np.concatenate(parts)
    return out


def _numbers(cuts: np.ndarray) -> int:
    """How many numbers the histograms of a box are."""
    return 3 + cuts.shape[0] * (cuts.shape[1] + 1)


@jax.jit
def _painted(box: Any) -> Any:
    return jax.vmap(lambda one: paint(one, VOXELS))(jax.tree.map(jnp.asarray, box))


def _ridge(blank: Baseline, x: np.ndarray, n: np.ndarray) -> tuple[Baseline, np.ndarray]:
    """The regression, and what it says of boxes that it had not seen."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    root, target = np.sqrt(x), np.sqrt(n + ANSCOMBE)
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 15)))
    unseen = cross_val_predict(ridge, root, target, cv=FOLDS)
    variance = ((target - unseen) ** 2).mean(axis=0)
    ridge.fit(root, target)
    scaler, last = ridge[0], ridge[1]
    weights = last.coef_.T / scaler.scale_[:, None]
    offset = last.intercept_ - scaler.mean_ @ weights
    found = dataclasses.replace(
        blank, weights=np.concatenate([offset[None], weights]), root_variance=variance
    )
    return found, mean_of_roots(unseen, variance)


def mean_of_roots(root: np.ndarray, variance: Numbers) -> np.ndarray:
    """[.., bin] mean number whose root, as the ridge takes it, has this mean and variance.

    With y = sqrt(n + 3/8), E[n] = E[y]^2 + Var[y] - 3/8: the square of the mean root alone is too
    high for few galaxies, too low for many that scatter (Duan 1983, by the residuals' variance).
    """
    return np.maximum(np.maximum(root, 0.0) ** 2 + variance - ANSCOMBE, 0.0)


def _forest(
    blank: Baseline, x: np.ndarray, n: np.ndarray, seed: int
) -> tuple[Baseline, np.ndarray]:
    """The forest, and what it says of boxes by the trees that had not seen them."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        TREES, min_samples_leaf=LEAF, max_features=0.5, oob_score=True, random_state=seed
    ).fit(x, n)
    return dataclasses.replace(blank, trees=of_sklearn(forest)), forest.oob_prediction_
