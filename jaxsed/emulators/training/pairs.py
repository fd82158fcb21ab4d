"""Simulated pairs of features and fluxes, in memory or in a folder that outlives the process.

The simulations come through a function handed in, so this module knows nothing of the physics:

    simulate(key, n) -> (features [n, feature], F10 [n, band] in maggies)

where F10 is the flux of 10^10 Msun formed at 10 pc (see `PhotometricEmulator`). For training on
derivatives as well it returns two arrays more: a direction in the features and the change of F10
along it, of the same shapes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.bands.magnitudes import to_arsinh
from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key
from jaxsed.io import files
from jaxsed.io.locks import Held, Lock

Simulate = Callable[[Array, int], tuple[Array, ...]]

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
    direction: np.ndarray | None = None
    """[pair, feature] float32; zero where the derivative is not finite."""
    slope: np.ndarray | None = None
    """[pair, band] float32, change of F10 along it."""


class PairSets(NamedTuple):
    """What an emulator is trained on, and what it is judged by."""

    train: Pairs
    test: Pairs


def simulate_pairs(
    key: Key,
    simulate: Simulate,
    n: int,
    widths: tuple[int, int],
    *,
    tangents: bool = False,
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
        tangents: keep directions and slopes, which `simulate` must return.
        folder: keeps the pairs as memory-mapped ``.npy`` files; a call that was interrupted goes
            on from its last chunk, and one that was not finds its pairs made.
        label: what the simulator is of, so that a folder's pairs are not taken for others.
        report: called with the number of pairs simulated so far.

    Raises:
        ValueError: simulations of the wrong shape, more than 1 % of them not finite, or a folder
            with the pairs of another key, number, shape or label, or that another process fills.
    """
    with _alone(folder):
        return _simulated(key, simulate, n, widths, tangents, folder, label, report)


@contextmanager
def _alone(folder: str | Path | None) -> Iterator[None]:
    """No other process fills the folder meanwhile."""
    if folder is None:
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(Path(folder) / "lock")
    except Held as held:
        raise ValueError(
            f"{folder} is in use by {held}: wait until it ends, or use another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _simulated(key, simulate, n, widths, tangents, folder, label, report) -> Pairs:
    key = typed_key(key)
    arrays, done, rows = _open(key, n, widths * (2 if tangents else 1), folder, label)
    size = min(_CHUNK, n)
    for i in range(done, -(-n // size)):
        # always a full chunk, so that the simulator compiles for one shape
        made = simulate(jax.random.fold_in(key, i), size)[: len(arrays)]
        check_simulated(made, [(size, array.shape[1]) for array in arrays])
        fresh = [np.asarray(a)[: n - i * size] for a in made]
        finite = np.isfinite(fresh[0]).all(1) & np.isfinite(fresh[1]).all(1)
        if tangents:
            known = np.isfinite(fresh[2]).all(1) & np.isfinite(fresh[3]).all(1)
            fresh[2:] = [np.where(known[:, None], a, 0.0) for a in fresh[2:]]
        stop = rows + int(finite.sum())
        for array, values in zip(arrays, fresh, strict=True):
            array[rows:stop] = values[finite]
        rows = stop
        report(min((i + 1) * size, n))
        if folder is not None:
            identity = _identity(key, n, [a.shape[1] for a in arrays], label)
            _save_progress(Path(folder), identity, i + 1, rows)
    n_invalid = n - rows
    check_finite(n_invalid, n)
    features, f10, *rest = (array[:rows] for array in arrays)
    return Pairs(features, f10, n_invalid, *rest)


def check_simulated(made: Sequence[Array], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raises ValueError unless the arrays that a simulator made have these shapes."""
    found = [jnp.shape(array) for array in made]
    if found != list(shapes):
        raise ValueError(
            f"expected simulate to return arrays of shapes {', '.join(map(str, shapes))}, "
            f"got {', '.join(map(str, found))}"
        )


def check_finite(n_invalid: int, n: int) -> None:
    """Raises ValueError if more than 1 % of the n simulations have a value that is not finite."""
    if n_invalid > _MAX_INVALID * n:
        raise ValueError(
            f"{n_invalid} of {n} simulations are not finite, more than {_MAX_INVALID:.0%}: "
            "narrow the ranges that the simulator draws from"
        )


def _open(key, n, widths, folder, label):
    """Arrays to fill, and how many chunks and rows of them are filled."""
    if folder is None:
        return [np.empty((n, width), np.float32) for width in widths], 0, 0
    folder = Path(folder)
    names = ("features", "f10", "direction", "slope")[: len(widths)]
    paths = [folder / f"{name}.npy" for name in names]
    progress = folder / "pairs.json"
    if not progress.exists():
        return [
            np.lib.format.open_memmap(path, "w+", np.float32, (n, width))
            for path, width in zip(paths, widths, strict=True)
        ], 0, 0  # fmt: skip
    known = json.loads(progress.read_text())
    if known["identity"] != _identity(key, n, widths, label):
        raise ValueError(
            f"{folder} holds other pairs (another key, number, shape or simulator): "
            "use another folder, or remove this one"
        )
    arrays = [np.lib.format.open_memmap(path, "r+") for path in paths]
    return arrays, known["chunks"], known["rows"]


def _identity(key, n, widths, label) -> str:
    words = np.asarray(jax.random.key_data(key)).tolist()
    return hashlib.sha256(json.dumps([words, n, widths, label]).encode()).hexdigest()


def _save_progress(folder: Path, identity: str, chunks: int, rows: int) -> None:
    text = json.dumps({"identity": identity, "chunks": chunks, "rows": rows})
    files.write_text(folder / "pairs.json", text)


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


def scaled(pairs: Pairs, scaling: Scaling, mu_0: float) -> tuple[np.ndarray, ...]:
    """Inputs [pair, feature] and targets [pair, band] of the network, float32.

    With derivatives also directions [pair, feature], of a root mean square of one in the inputs,
    and the change of the targets along them [pair, band]. Made in parts, so that besides the
    result nothing of its size is held in memory.
    """
    shapes = [pairs.features.shape, pairs.f10.shape] * (1 if pairs.slope is None else 2)
    out = tuple(np.empty(shape, np.float32) for shape in shapes)
    for part in _slices(len(pairs.features)):
        f10 = pairs.f10[part]
        out[0][part] = (pairs.features[part] - scaling.feature_shift) / scaling.feature_scale
        out[1][part] = np.asarray(to_arsinh(f10, mu_0)) - scaling.output_mean
        if pairs.direction is not None and pairs.slope is not None:
            direction = pairs.direction[part] / scaling.feature_scale
            length = np.sqrt(np.mean(direction**2, 1, keepdims=True))
            length = np.where(length > 0, length, 1.0)
            slope = jax.jvp(lambda f: to_arsinh(f, mu_0), (f10,), (pairs.slope[part],))[1]
            out[2][part], out[3][part] = direction / length, np.asarray(slope) / length
    return out


def box_of(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Range of each feature [feature], a little wider than that of the sample."""
    low, high = features.min(0).astype(float), features.max(0).astype(float)
    # a uniform distribution reaches a little beyond the extremes of its sample
    margin = (high - low) / max(len(features) - 1, 1)
    return low - margin, high + margin


def _slices(n: int) -> Sequence[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, n, _CHUNK)]
