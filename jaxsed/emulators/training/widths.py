"""Which width of the layers is enough (Mathews et al. 2023, section 4.1).

Networks of a series of widths are trained on the same pairs and judged on the same others. The
smallest whose errors stay below those of the survey in every band, and whose correlations between
bands may be neglected, is the one to use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsed.bands.magnitudes import POGSON
from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key
from jaxsed.emulators.photometric.emulator import PhotometricEmulator
from jaxsed.emulators.training.pairs import (
    PairSets,
    Simulate,
    box_of,
    scaled,
    scaling_of,
    simulate_pairs,
)
from jaxsed.emulators.training.photometric import (
    EmulatorTarget,
    Keys,
    TrainSettings,
    judged,
    train_on,
)
from jaxsed.emulators.training.width_scan import WidthLadder, judge, width_result


def choose_width(
    key: Key,
    simulate: Simulate | PairSets,
    target: EmulatorTarget,
    *,
    widths: Sequence[int] = (64, 128, 256, 512),
    settings: TrainSettings | None = None,
    seconds: Mapping[int, float] | None = None,
    sigma_survey: ArrayLike | None = None,
    error_floor: float = 0.05,
    max_correlation: float = 0.1,
    folder: str | Path | None = None,
    progress: bool = True,
) -> WidthLadder:
    """Train a series of widths on the same pairs and say which is enough.

    A width is enough if the emulator's sigma is below the survey's in every band, and if no two
    bands' total errors (survey and emulator) correlate by more than `max_correlation`, because
    the likelihood adds the emulator's variances band by band (Mathews et al. 2023, eq. 9).

    Args:
        key: random key of the whole run; each width trains as `train_photometric` would with it.
        simulate: makes pairs (see `jaxsed.emulators.training.pairs`), or the pairs themselves.
        target: what is emulated.
        widths: nodes per layer, two or more.
        settings: of every width but for the width; `fresh` is not possible.
        seconds: training time by width, in place of the settings'; see `share_seconds`.
        sigma_survey: [band] uncertainty of the survey [mag].
        error_floor: relative uncertainty in place of `sigma_survey`.
        max_correlation: see above.
        folder: where pairs, checkpoints and emulators ``width_N.h5`` are kept. An interrupted run
            goes on from there; a width whose file is there is not trained again.
        progress: show progress lines.

    Raises:
        ValueError: unusable widths, settings or uncertainties, a folder of another run, or
            simulations that fail (see `simulate_pairs`).
    """
    settings = settings or TrainSettings()
    key = typed_key(key)
    widths, survey = _checked(widths, settings, target, sigma_survey, error_floor)
    folder = None if folder is None else Path(folder)
    pairs = (
        simulate
        if isinstance(simulate, PairSets)
        else simulate_sets(key, simulate, target, settings, folder=folder)
    )
    scaling = scaling_of(pairs.train, settings.mu_0)
    target = target._replace(box=target.box or box_of(pairs.train.features))
    runs = {
        width: dataclasses.replace(
            settings,
            width=width,
            fit=dataclasses.replace(
                settings.fit, max_seconds=(seconds or {}).get(width, settings.fit.max_seconds)
            ),
        )
        for width in widths
    }
    done = {width: finished(_file(folder, width), key, run) for width, run in runs.items()}
    data = None
    results = []
    for width, run in runs.items():
        emulator = done[width]
        if emulator is None:
            if data is None:
                # on the device once, so that the trainings share one copy
                data = jax.tree.map(jnp.asarray, scaled(pairs.train, scaling, settings.mu_0))
            file = _file(folder, width)
            checkpoint = None if file is None else file.with_suffix(".checkpoint")
            emulator, _ = train_on(
                key, data, target, scaling,
                settings=run, checkpoint=checkpoint, progress=progress,
                notes={"simulations_not_finite": pairs.train.n_invalid},
            )  # fmt: skip
            emulator = judged(key, emulator, pairs.test, run)
            if file is not None and checkpoint is not None:
                emulator.save(file)
                checkpoint.unlink(missing_ok=True)
        results.append(width_result(emulator, pairs.test.features, survey))
    return judge(target, tuple(results), survey, max_correlation)


def simulate_sets(
    key: Key,
    simulate: Simulate,
    target: EmulatorTarget,
    settings: TrainSettings,
    *,
    folder: str | Path | None = None,
) -> PairSets:
    """The training and test pairs of a run; kept in `folder`, if one is given.

    Raises:
        ValueError: see `simulate_pairs`.
    """
    keys = Keys.of(key)
    label = "|".join([target.physics, target.ssp, *target.feature_names, *target.band_names])
    train, test = (
        simulate_pairs(
            k, simulate, n, target.widths, label=label,
            tangents=settings.sobolev > 0 and name == "train",
            folder=None if folder is None else Path(folder) / name,
        )
        for k, n, name in (
            (keys.train, settings.n_train, "train"),
            (keys.test, settings.n_test, "test"),
        )
    )  # fmt: skip
    return PairSets(train, test)


def share_seconds(
    widths: Sequence[int], target: EmulatorTarget, total: float, layers: int = 6
) -> dict[int, float]:
    """Seconds of training by width: parts of `total` in proportion to the multiplications."""
    n_in, n_out = target.widths
    cost = {n: n * (n_in + (layers - 2) * n + n_out) for n in widths}
    return {n: total * c / sum(cost.values()) for n, c in cost.items()}


def _checked(widths, settings, target, sigma_survey, error_floor):
    """Widths in order and [band] uncertainties of the survey [mag]."""
    widths = tuple(sorted({int(n) for n in widths}))
    if len(widths) < 2 or widths[0] < 1:
        raise ValueError(f"expected two or more positive widths, got {widths}")
    if settings.fresh:
        raise ValueError("expected settings with fresh=False: the widths share their pairs")
    n_bands = target.widths[1]
    if sigma_survey is None:
        sigma_survey = POGSON * error_floor
    survey = np.asarray(sigma_survey, float)
    if survey.ndim == 0:
        survey = np.full(n_bands, survey)
    if survey.shape != (n_bands,) or not (np.isfinite(survey) & (survey > 0)).all():
        raise ValueError(
            f"expected positive uncertainties [mag] of {n_bands} bands, got shape {survey.shape}"
        )
    return widths, survey


def _file(folder: Path | None, width: int) -> Path | None:
    return None if folder is None else folder / f"width_{width}.h5"


def finished(file: Path | None, key: Key, settings: TrainSettings) -> PhotometricEmulator | None:
    """The emulator in a file that an earlier call of the same run left, or None.

    Raises:
        ValueError: it is of another key, or of other settings but for those of the optimiser.
    """
    if file is None or not file.exists():
        return None
    emulator = PhotometricEmulator.load(file)
    training = emulator.record.training

    own = dataclasses.asdict(settings)
    made = training["settings"]
    same_settings = all(own[k] == made[k] for k in own.keys() & made.keys() - {"fit", "spread"})
    if not same_settings or training["seed"] != np.asarray(jax.random.key_data(key)).tolist():
        raise ValueError(
            f"{file} is of a run with another key or settings: "
            "use another folder, or remove the file"
        )
    return emulator
