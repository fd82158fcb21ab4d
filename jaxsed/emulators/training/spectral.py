"""Training a spectrum emulator: PCA in a stream, then a network from parameters to scores.

The simulations come through a function handed in, so this module knows nothing of the physics:

    simulate(key, n) -> (parameters [n, parameter], ln flux [n, wave])

They stream past twice: once for the moments that the PCA needs, once to be projected onto its
components. Spectra are never kept, only their scores.

The ln flux is not scaled by its standard deviation before the PCA, as in Alsing et al. (2020):
scores are then rotated ln fluxes, and their error is the error of the ln flux.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key
from jaxsed.emulators.spectral.emulator import SpectrumEmulator, spectral_window
from jaxsed.emulators.training.networks import (
    FAST,
    check_sizes,
    layer_sizes,
    predictions,
    root,
)
from jaxsed.emulators.training.pairs import Simulate, box_of, check_finite, check_simulated
from jaxsed.emulators.training.pca import Components, Moments, principal_components
from jaxsed.learn import FitSettings, History, fit
from jaxsed.learn.record import training_record
from jaxsed.nets import mlp
from jaxsed.rest_frame.spectrum import Resolution

KWON = FitSettings(
    optimizer="adam",
    schedule="staged",
    learning_rates=(1e-3, 5e-4, 1e-4, 5e-5, 1e-5, 5e-6, 1e-6),
    patience=20,
)
"""Training as published (Kwon et al. 2022, section 3): Adam, a lower rate at every plateau."""

_CHUNK = 10_000


class SpectrumTarget(NamedTuple):
    """What is emulated."""

    parameter_names: Sequence[str]
    wave: ArrayLike  # [wave] vacuum Angstrom
    resolution: Resolution
    box: tuple[ArrayLike, ArrayLike] | None = None  # default: the training set's


@dataclasses.dataclass(frozen=True)
class SpectrumSettings:
    """Size of the training set, of the basis and of the network."""

    n_train: int = 300_000
    n_pca: int = 100_000  # of them, for the moments
    joints: tuple[float, ...] = (3600.0, 5500.0, 7410.0)  # Angstrom, between the windows
    components: tuple[int, ...] = (50, 50, 50, 30)  # per window
    overlap: float = 0.02  # windows blend within this fraction of a joint's wavelength
    width: int = 256
    layers: int = 6  # counting the output layer
    activation: str = "gelu_tanh"  # or "speculator"
    fit: FitSettings = FAST

    def __post_init__(self):
        check_sizes(self, "n_train", "n_pca", "width", "layers")
        if len(self.components) != len(self.joints) + 1 or min(self.components) < 1:
            raise ValueError(
                f"expected numbers of components for {len(self.joints) + 1} windows, "
                f"got {self.components}"
            )
        if list(self.joints) != sorted(set(self.joints)) or not 0 < self.overlap < 0.1:
            raise ValueError(f"expected increasing joints, got {self.joints}")


class Trained(NamedTuple):
    """A spectrum emulator and how it came about."""

    emulator: SpectrumEmulator
    history: History
    notes: dict[str, Any]
    """JSON types."""


class Basis(NamedTuple):
    """Principal components of all windows, as one map from scores to ln flux."""

    mean: np.ndarray
    """[wave] ln flux."""
    windows: tuple[tuple[slice, Components], ...]
    """Columns and components of every window; neighbours overlap."""
    blend: np.ndarray
    """[window, wave] weights, which sum to one at every wavelength."""

    @property
    def sigma(self) -> np.ndarray:
        """[score] standard deviations."""
        return np.concatenate([part.sigma for _, part in self.windows])

    @property
    def weight(self) -> np.ndarray:
        """[score] of squared standardised errors: they sum to the mean square error of the ln
        flux, every window counting the same."""
        return np.concatenate(
            [part.sigma**2 / (part.basis.shape[1] * len(self.windows)) for _, part in self.windows]
        )

    def matrix(self) -> np.ndarray:
        """[score, wave] of the blended windows."""
        rows = []
        for (columns, part), weight in zip(self.windows, self.blend, strict=True):
            full = np.zeros((len(part.basis), self.mean.size))
            full[:, columns] = part.basis
            rows.append(full * weight)
        return np.concatenate(rows)

    def scores(self, ln_flux: np.ndarray) -> np.ndarray:
        """[row, score] of ln flux [row, wave]."""
        centred = ln_flux - self.mean
        return np.concatenate(
            [part.scores(centred[:, columns]) for columns, part in self.windows], axis=1
        )


def blend_weights(wave: np.ndarray, joints: Sequence[float], overlap: float) -> np.ndarray:
    """Weights [window, wave] of the windows between the joints, a partition of unity.

    Around a joint J the window that ends has cos^2 x and the one that begins sin^2 x, where x
    runs from 0 at (1 - overlap) J to pi/2 at (1 + overlap) J: ln flux and its slope are
    continuous there.
    """
    begun = [np.ones(wave.size)]
    for joint in joints:
        t = np.clip((wave / joint - (1 - overlap)) / (2 * overlap), 0.0, 1.0)
        begun.append(np.sin(0.5 * np.pi * t) ** 2)
    begun.append(np.zeros(wave.size))
    return np.stack([a * (1.0 - b) for a, b in zip(begun[:-1], begun[1:], strict=True)])


def fit_basis(moments: Moments, wave: np.ndarray, settings: SpectrumSettings) -> Basis:
    """Principal components per window; ValueError if a window has fewer nodes than components."""
    blend = blend_weights(wave, settings.joints, settings.overlap)
    windows = []
    for weight, n in zip(blend, settings.components, strict=True):
        (inside,) = np.nonzero(weight > 0)
        if inside.size < n:
            raise ValueError(f"expected {n} wavelengths or more in a window, got {inside.size}")
        columns = slice(int(inside[0]), int(inside[-1]) + 1)
        windows.append((columns, principal_components(moments, n, columns)))
    return Basis(moments.mean, tuple(windows), blend)


def stream(
    key: Key, simulate: Simulate, n: int, widths: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The finite ones of n simulations, chunk after chunk; the same for the same key.

    Raises ValueError for simulations of the wrong shape, or if more than 1 % are not finite.
    """
    bad = 0
    for i, start in enumerate(range(0, n, _CHUNK)):
        # always a full chunk, so that the simulator compiles for one shape
        made = simulate(jax.random.fold_in(key, i), _CHUNK)
        check_simulated(made, [(_CHUNK, width) for width in widths])
        x, y = (np.asarray(a)[: n - start] for a in made)
        finite = np.isfinite(x).all(1) & np.isfinite(y).all(1)
        bad += int(np.sum(~finite))
        check_finite(bad, n)
        yield (x, y) if finite.all() else (x[finite], y[finite])


def train_spectrum(
    key: Key,
    simulate: Simulate,
    target: SpectrumTarget,
    *,
    settings: SpectrumSettings | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Fit the PCA and the network of one spectral component.

    One network gives the scores of all windows, since they follow from the same parameters.

    Args:
        key: random key of the simulations, the initial network and the shuffles.
        simulate: makes pairs, see the module's docstring.
        target: what is emulated.
        settings: sizes and training.
        checkpoint: HDF5 file to continue the training from after an interruption.
        progress: show a progress line.

    Raises:
        ValueError: simulations of the wrong shape, too many of them not finite, or a window with
            fewer wavelengths than components.
    """
    settings = settings or SpectrumSettings()
    key = typed_key(key)
    key_train, key_net, key_fit = jax.random.split(key, 3)
    wave = np.asarray(target.wave, float)
    widths = (len(target.parameter_names), wave.size)
    began = time.perf_counter()
    moments = Moments.none(wave.size)
    for _, ln_flux in stream(key_train, simulate, min(settings.n_pca, settings.n_train), widths):
        moments = moments.updated(ln_flux)
    basis = fit_basis(moments, wave, settings)
    parts = [
        (x, (basis.scores(y) / basis.sigma).astype(np.float32))
        for x, y in stream(key_train, simulate, settings.n_train, widths)
    ]
    parameters, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    del parts
    simulated = time.perf_counter() - began
    shift, scale = parameters.mean(0, dtype=float), parameters.std(0, dtype=float)
    data = (((parameters - shift) / scale).astype(np.float32), scores)
    sizes = layer_sizes(settings, widths[0], scores.shape[1])
    layers, history = fit(
        key_fit, mlp.init(key_net, sizes, settings.activation),
        score_loss(settings.activation, basis.weight), data,
        settings=settings.fit, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    window = spectral_window(
        layers,
        parameters=(shift, scale),
        scores=(np.zeros(len(basis.sigma)), basis.sigma),
        basis=basis.matrix(),
        spectrum=(basis.mean, np.ones(wave.size)),
        activation=settings.activation,
    )
    emulator = SpectrumEmulator.create(
        [window], wave, target.parameter_names,
        box=target.box or box_of(parameters), resolution=target.resolution,
    )  # fmt: skip
    done = training_record(jax.random.key_data(key), settings, history)
    notes = done.to_dict("validation_rms_ln_flux") | {
        "pca_residual_rms_ln_flux": [float(part.residual) for _, part in basis.windows],
        "simulation_seconds": round(simulated, 1),
    }
    return Trained(emulator, history, notes)


def score_loss(activation: str, weight: np.ndarray):
    """Loss for `fit` on batches (x [pair, parameter], standardised scores [pair, score]).

    The root of the mean over pairs of the weighted sum of squares: with `Basis.weight`, the root
    mean square error of the ln flux.
    """
    predict = predictions(activation)

    def loss(layers, batch, key):
        del key  # nothing random in it
        x, y = batch
        square = jnp.sum((predict(layers, x) - y) ** 2 * jnp.asarray(weight, x.dtype), axis=1)
        return root(jnp.mean(square))

    return loss
