"""Training a photometric emulator from simulated pairs (Mathews et al. 2023, section 2.2).

The simulations come through a function handed in, so this module knows nothing of the physics:

    simulate(key, n) -> (features [n, feature], F10 [n, band] in maggies)

where F10 is the flux of 10^10 Msun formed at 10 pc (see `jaxsed.emulators.photometric`).
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.cosmology import PLANCK15, Cosmology
from jaxsed.emulators.errors import measure_error
from jaxsed.emulators.photometric import EmulatorRecord, FilterCurve, PhotometricEmulator
from jaxsed.learn import FitSettings, History, fit
from jaxsed.magnitudes import to_arsinh
from jaxsed.nets import mlp

Simulate = Callable[[Array, int], tuple[Array, Array]]

_LOSSES: dict[str, int | None] = {"rmse": None, "band_rmse": 0}  # axis of the mean square
_CHUNK = 50_000
_MAX_INVALID = 0.01

FAST = FitSettings(
    optimizer="soap",
    schedule="cosine",
    learning_rates=(1e-2, 1e-6),
    batch_size=1000,
    epochs=400,
    patience=400,
)
"""In a minute on one core, a quarter of the error of the published settings (`FitSettings()`).

A cosine needs its end to be known: either the epochs, or the time there is, by
`dataclasses.replace(FAST, max_seconds=...)`.
"""


class EmulatorTarget(NamedTuple):
    """What is emulated."""

    feature_names: Sequence[str]  # as `jaxsed.params.features` understands them
    band_names: Sequence[str]
    curves: Sequence[FilterCurve] = ()  # one per band
    physics: str = ""
    ssp: str = ""
    cosmology: Cosmology = PLANCK15
    box: tuple[Array, Array] | None = None  # range of each feature; default: the training set's
    citations: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Size of the network and of its training and test sets."""

    n_train: int = 1_000_000
    n_test: int = 100_000
    width: int = 256
    layers: int = 6  # counting the output layer, as Mathews et al. (2023) do
    mu_0: float = 0.0  # softening magnitude of F10
    activation: str = "gelu_tanh"
    loss: str = "rmse"  # or "band_rmse", see `rmse_loss`
    fresh: bool = False  # simulate n_train new pairs for every epoch
    fit: FitSettings = FAST

    def __post_init__(self):
        for name in ("n_train", "n_test", "width", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if self.loss not in _LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}: choose one of {sorted(_LOSSES)}")


def train_photometric(
    key: Array,
    simulate: Simulate,
    target: EmulatorTarget,
    *,
    settings: TrainSettings | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> tuple[PhotometricEmulator, History]:
    """Simulate, train, and measure the error on fresh pairs.

    The loss is the RMSE of the arsinh magnitudes over all bands and pairs of a batch.

    Args:
        key: random key of the simulations, the initial network and the shuffles.
        simulate: makes pairs, see the module's docstring. Pairs with a value that is not finite
            are left out, and counted in the record.
        target: what is emulated.
        settings: sizes and training.
        checkpoint: HDF5 file to continue from after an interruption (the simulations are made
            again, from the same key).
        progress: show a progress line.

    Raises:
        ValueError: simulations of the wrong shape, or more than 1 % of them not finite.
    """
    settings = settings or TrainSettings()
    n_features, n_bands = len(target.feature_names), len(target.band_names)
    key_train, key_test, key_net, key_fit = jax.random.split(key, 4)
    began = time.perf_counter()

    def pairs(key, n):
        return simulate_pairs(key, simulate, n, (n_features, n_bands))

    features, f10, n_invalid = pairs(key_train, settings.n_train)
    simulating = time.perf_counter() - began
    box = target.box or _box_of(features)
    magnitudes = np.asarray(to_arsinh(f10, settings.mu_0))
    shift, scale = features.mean(0, dtype=float), features.std(0, dtype=float)
    mean = magnitudes.mean(0, dtype=float)

    def scaled(features, magnitudes):
        x, y = (features - shift) / scale, magnitudes - mean
        return x.astype(np.float32), y.astype(np.float32)

    if settings.fresh:
        # every epoch needs the same number of pairs, so invalid ones are replaced by repetition
        def data(key):
            x, f, _ = pairs(key, settings.n_train)
            x, y = scaled(x, np.asarray(to_arsinh(f, settings.mu_0)))
            rows = np.arange(settings.n_train) % len(x)
            return x[rows], y[rows]
    else:
        data = scaled(features, magnitudes)
        del features, f10, magnitudes

    sizes = (n_features, *(settings.width,) * (settings.layers - 1), n_bands)
    layers = mlp.init(key_net, sizes, settings.activation)
    layers, history = fit(
        key_fit, layers, rmse_loss(settings.activation, settings.loss), data,
        settings=settings.fit, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    training = {
        "settings": dataclasses.asdict(settings),
        "seed": np.asarray(jax.random.key_data(key)).tolist(),
        "simulations_not_finite": n_invalid,
        "simulation_seconds": round(simulating, 1),
        "training_seconds": round(float(history.seconds[-1]), 1),
        "samples_trained_on": int(history.samples[-1]),
        "validation_loss_mag": history.best_loss,
        "stopped": history.stopped,
        "backend": jax.default_backend(),
        "jax": jax.__version__,
    }
    record = EmulatorRecord(
        target.physics, target.ssp, tuple(FilterCurve(*c) for c in target.curves), training,
        tuple(target.citations),
    )  # fmt: skip
    emulator = PhotometricEmulator.create(
        layers, (shift, scale, mean), (target.feature_names, target.band_names),
        box=box, mu_0=settings.mu_0, cosmology=target.cosmology,
        activation=settings.activation, record=record,
    )  # fmt: skip
    test_features, test_f10, _ = pairs(key_test, settings.n_test)
    return measure_error(emulator, test_features, test_f10), history


def rmse_loss(activation: str = "gelu_tanh", kind: str = "rmse"):
    """Loss for `fit` on batches (x [pair, feature], y [pair, band]).

    "rmse" is the root of the mean square over pairs and bands: Mathews et al. (2023, section
    2.2) found it to train better than the mean square. "band_rmse" is the mean over bands of the
    root of the mean square over pairs: it keeps a few bands that are hard to learn, such as those
    in the far ultraviolet, from setting the error of all.
    """
    predict = jax.vmap(lambda layers, x: mlp.apply(layers, x, activation), in_axes=(None, 0))
    axes = _LOSSES[kind]

    def loss(layers, batch, key):
        del key  # nothing random in it
        x, y = batch
        mean_square = jnp.mean((predict(layers, x) - y) ** 2, axes)
        # the gradient of a root is infinite at zero
        return jnp.mean(jnp.sqrt(jnp.maximum(mean_square, 1e-20)))

    return loss


def simulate_pairs(
    key: Array, simulate: Simulate, n: int, widths: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Features [n', feature] and F10 [n', band] of the finite pairs among n, and n - n'.

    Raises:
        ValueError: see `train_photometric`.
    """
    features, f10 = np.empty((n, widths[0]), np.float32), np.empty((n, widths[1]), np.float32)
    for i, start in enumerate(range(0, n, _CHUNK)):
        stop = min(start + _CHUNK, n)
        # always a full chunk, so that the simulator compiles for one shape
        x, f = simulate(jax.random.fold_in(key, i), min(_CHUNK, n))
        expected = tuple((min(_CHUNK, n), width) for width in widths)
        if (jnp.shape(x), jnp.shape(f)) != expected:
            raise ValueError(
                f"expected simulate to return arrays of shapes {expected[0]} and {expected[1]}, "
                f"got {jnp.shape(x)} and {jnp.shape(f)}"
            )
        features[start:stop] = np.asarray(x)[: stop - start]
        f10[start:stop] = np.asarray(f)[: stop - start]
    finite = np.isfinite(features).all(1) & np.isfinite(f10).all(1)
    n_invalid = int(n - finite.sum())
    if n_invalid > _MAX_INVALID * n:
        raise ValueError(
            f"{n_invalid} of {n} simulations are not finite, more than {_MAX_INVALID:.0%}: "
            "narrow the ranges that the simulator draws from"
        )
    return (features[finite], f10[finite], n_invalid) if n_invalid else (features, f10, 0)


def _box_of(features):
    low, high = features.min(0).astype(float), features.max(0).astype(float)
    # a uniform distribution reaches a little beyond the extremes of its sample
    margin = (high - low) / max(len(features) - 1, 1)
    return low - margin, high + margin
