"""Simulated pairs of features and fluxes, in memory or in a folder that outlives the process.

The simulations come through a function handed in, so this module knows nothing of the physics:

    simulate(key, n) -> (features [n, feature], F10 [n, band] in maggies)

where F10 is the flux of 10^10 Msun formed at 10 pc (see `jaxsed.emulators.photometric`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.magnitudes import to_arsinh

Simulate = Callable[[Array, int], tuple[Array, Array]]

_CHUNK = 50_000
_MAX_INVALID = 0.01


class Pairs(NamedTuple):
    """Finite pairs; the arrays may be memory maps."""

    features: np.ndarray
    """[pair, feature] float32."""
    f10: np.ndarray
    """[pair, band] float32, maggies."""
    n_invalid: int = 0
    """How many more were simulated and left out, because a value was not finite."""


class PairSets(NamedTuple):
    """What an emulator is trained on, and what it is judged by."""

    train: Pairs
    test: Pairs


def simulate_pairs(
    key: Array,
    simulate: Simulate,
    n: int,
    widths: tuple[int, int],
    *,
    folder: str | Path | None = None,
    label: str = "",
    report: Callable[[int], None] = lambda done: None,
) -> Pairs:
    """The finite ones among n simulated pairs.

    Args:
        key: random key; each chunk of pairs has its own, so that pairs do not depend on n.
        simulate: makes pairs, see the module's docstring.
        n: pairs to simulate.
        widths: number of features and of bands.
        folder: keeps the pairs as memory-mapped ``.npy`` files; a call that was interrupted goes
            on from its last chunk, and one that was not finds its pairs made.
        label: what the simulator is of, so that a folder's pairs are not taken for others.
        report: called with the number of pairs simulated so far.

    Raises:
        ValueError: simulations of the wrong shape, more than 1 % of them not finite, or a folder
            with the pairs of another key, number, shape or label.
    """
    features, f10, done, rows = _open(key, n, widths, folder, label)
    size = min(_CHUNK, n)
    for i in range(done, -(-n // size)):
        # always a full chunk, so that the simulator compiles for one shape
        x, f = simulate(jax.random.fold_in(key, i), size)
        expected = tuple((size, width) for width in widths)
        if (jnp.shape(x), jnp.shape(f)) != expected:
            raise ValueError(
                f"expected simulate to return arrays of shapes {expected[0]} and {expected[1]}, "
                f"got {jnp.shape(x)} and {jnp.shape(f)}"
            )
        fresh = [np.asarray(a)[: n - i * size] for a in (x, f)]
        finite = np.isfinite(fresh[0]).all(1) & np.isfinite(fresh[1]).all(1)
        stop = rows + int(finite.sum())
        features[rows:stop], f10[rows:stop] = (a[finite] for a in fresh)
        rows = stop
        report(min((i + 1) * size, n))
        if folder is not None:
            _save_progress(Path(folder), _identity(key, n, widths, label), i + 1, rows)
    n_invalid = n - rows
    if n_invalid > _MAX_INVALID * n:
        raise ValueError(
            f"{n_invalid} of {n} simulations are not finite, more than {_MAX_INVALID:.0%}: "
            "narrow the ranges that the simulator draws from"
        )
    return Pairs(features[:rows], f10[:rows], n_invalid)


def _open(key, n, widths, folder, label):
    """Arrays to fill, and how many chunks and rows of them are filled."""
    if folder is None:
        return *(np.empty((n, width), np.float32) for width in widths), 0, 0
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "features.npy", folder / "f10.npy"]
    progress = folder / "pairs.json"
    if not progress.exists():
        maps = [
            np.lib.format.open_memmap(path, "w+", np.float32, (n, width))
            for path, width in zip(paths, widths, strict=True)
        ]
        return *maps, 0, 0
    known = json.loads(progress.read_text())
    if known["identity"] != _identity(key, n, widths, label):
        raise ValueError(
            f"{folder} holds other pairs (another key, number, shape or simulator): "
            "use another folder, or remove this one"
        )
    return (
        *(np.lib.format.open_memmap(path, "r+") for path in paths),
        known["chunks"],
        known["rows"],
    )


def _identity(key, n, widths, label) -> str:
    words = np.asarray(jax.random.key_data(key)).tolist()
    return hashlib.sha256(json.dumps([words, n, widths, label]).encode()).hexdigest()


def _save_progress(folder: Path, identity: str, chunks: int, rows: int) -> None:
    partial = folder / "pairs.json.partial"
    partial.write_text(json.dumps({"identity": identity, "chunks": chunks, "rows": rows}))
    os.replace(partial, folder / "pairs.json")


class Scaling(NamedTuple):
    """What turns features and magnitudes into a network's input and output."""

    feature_shift: np.ndarray  # [feature] subtracted
    feature_scale: np.ndarray  # [feature] divided by
    output_mean: np.ndarray  # [band] subtracted [mag]


def scaling_of(pairs: Pairs, mu_0: float) -> Scaling:
    """Means and standard deviations of the features, means of the arsinh magnitudes."""
    features = pairs.features
    total = np.zeros(pairs.f10.shape[1])
    for part in _slices(len(features)):
        total += np.asarray(to_arsinh(pairs.f10[part], mu_0)).sum(0, dtype=float)
    return Scaling(
        features.mean(0, dtype=float), features.std(0, dtype=float), total / len(features)
    )


def scaled(pairs: Pairs, scaling: Scaling, mu_0: float) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [pair, feature] and targets [pair, band] of the network, float32.

    Made in parts, so that besides the result nothing of its size is held in memory.
    """
    x = np.empty(pairs.features.shape, np.float32)
    y = np.empty(pairs.f10.shape, np.float32)
    for part in _slices(len(x)):
        x[part] = (pairs.features[part] - scaling.feature_shift) / scaling.feature_scale
        y[part] = np.asarray(to_arsinh(pairs.f10[part], mu_0)) - scaling.output_mean
    return x, y


def box_of(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Range of each feature [feature], a little wider than that of the sample."""
    low, high = features.min(0).astype(float), features.max(0).astype(float)
    # a uniform distribution reaches a little beyond the extremes of its sample
    margin = (high - low) / max(len(features) - 1, 1)
    return low - margin, high + margin


def _slices(n: int) -> Sequence[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, n, _CHUNK)]
