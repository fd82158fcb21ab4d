"""A random forest from the inner properties of a halo to its galaxy's stellar mass, and which of
them matter (Nadler & To 2018, section 3.1)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxsed.core.types import Numbers
from jaxsed.halos.boxes import Features
from jaxsed.halos.catalogue import Halos
from jaxsed.halos.trees import Trees, of_sklearn
from jaxsed.io.components import Component
from jaxsed.learn.calibration import robust_scatter

TEST = 0.2
"""Share of the halos that the forest never sees."""

FOLDS = 5

TREES = 200

GRID: dict[str, list[Any]] = {
    "min_samples_leaf": [2, 4, 8], "max_depth": [10, None], "max_features": [0.5, 1.0]
}  # fmt: skip
"""What the cross-validation chooses from."""

SEARCHED = 8000
"""Halos at most that the choice is made on."""

REPEATS = 5
"""Of the permutations of a feature."""


@dataclasses.dataclass(frozen=True)
class HaloForest(Component, kind="halo forest", names={"trees/depth": "depth"}):
    """``predict(halos) -> log10 stellar mass`` [halo]."""

    trees: Trees
    features: Features
    figures: dict[str, Any] = dataclasses.field(compare=False)
    """On halos it never saw: "r2", "scatter" (dex), "robust_scatter", "bias"; "out_of_bag" R^2;
    "importance" and "permutation" by feature; what the cross-validation chose, and the numbers of
    halos."""

    def predict(self, halos: Halos) -> np.ndarray:
        """[halo] log10 stellar mass in Msun.

        Raises ValueError for features that the halos lack.
        """
        return self.trees.predict(self.features.of_halos(halos))[:, 0]

    def _after_loading(self) -> HaloForest:
        self.trees.check(len(self.features.names))
        return self


def fit_forest(
    halos: Halos,
    *,
    features: Numbers = None,
    lowest: float = 0.0,
    grid: dict[str, list[Any]] | None = None,
    seed: int = 0,
) -> tuple[HaloForest, np.ndarray, np.ndarray]:
    """Grow a forest on four fifths of the halos that have galaxies; measure it on the others.

    Depth, leaves and features per split are chosen by five-fold cross-validation.

    Args:
        halos: with stellar masses.
        features: by default all of them.
        lowest: log10 stellar mass in Msun below which galaxies are left out.
        grid: what to choose from, as `sklearn.model_selection.GridSearchCV` takes it.
        seed: of the split and the trees.

    Returns the forest, and the true and predicted log10 stellar masses of the halos it never saw.

    Raises ValueError for halos without stellar masses, or too few with a galaxy.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import GridSearchCV

    if halos.stellar_mass is None:
        raise ValueError("the halos have no stellar_mass to learn from")
    used = np.flatnonzero(halos.stellar_mass > 10**lowest)
    if used.size < 10 * FOLDS:
        raise ValueError(f"expected at least {10 * FOLDS} halos with a galaxy, got {used.size}")
    known = Features.of(halos, features)
    x, y = known.of_halos(halos)[used], np.log10(halos.stellar_mass[used])
    order = np.random.default_rng(seed).permutation(used.size)
    held = round(TEST * used.size)
    test, train = order[:held], order[held:]
    search = GridSearchCV(
        RandomForestRegressor(TREES // 4, random_state=seed), grid or GRID, cv=FOLDS
    ).fit(x[train[:SEARCHED]], y[train[:SEARCHED]])
    forest = RandomForestRegressor(
        TREES, oob_score=True, random_state=seed, **search.best_params_
    ).fit(x[train], y[train])
    permuted = permutation_importance(
        forest, x[test], y[test], n_repeats=REPEATS, random_state=seed
    )
    trees = of_sklearn(forest)
    found = trees.predict(x[test])[:, 0].astype(float)
    gap = found - y[test]
    figures = {
        "r2": float(1 - np.mean(gap**2) / np.var(y[test])),
        "scatter": float(gap.std()),
        "robust_scatter": robust_scatter(gap),
        "bias": float(gap.mean()),
        "out_of_bag": float(forest.oob_score_),
        "chosen": search.best_params_,
        "importance": dict(zip(known.names, forest.feature_importances_.tolist(), strict=True)),
        "permutation": dict(zip(known.names, permuted.importances_mean.tolist(), strict=True)),
        "halos": [int(train.size), int(test.size)],
    }
    return HaloForest(trees, known, figures), y[test], found
