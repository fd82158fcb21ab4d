"""Training the members of a stitched emulator, one redshift window after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key
from jaxsed.emulators.photometric.emulator import PhotometricEmulator
from jaxsed.emulators.photometric.stitched import StitchedEmulator
from jaxsed.emulators.photometric.windows import WINDOWS, Windows, check_windows
from jaxsed.emulators.training.pairs import Simulate, box_of, scaled, scaling_of
from jaxsed.emulators.training.photometric import EmulatorTarget, TrainSettings, judged, train_on
from jaxsed.emulators.training.widths import finished, simulate_sets
from jaxsed.emulators.validation.errors import measure_error


def train_stitched(
    key: Key,
    simulate: Callable[[float, float], Simulate],
    target: EmulatorTarget,
    *,
    windows: Windows = WINDOWS,
    settings: TrainSettings | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> StitchedEmulator:
    """Train a member in each redshift window and stitch them.

    The errors of the result are measured on the test pairs of all windows together.

    Args:
        key: random key of the whole run.
        simulate: ``simulate(low, high)`` makes the simulator of pairs between two redshifts, see
            `jaxsed.emulators.training.pairs`.
        target: what is emulated; its features include the redshift.
        windows: (lowest, highest) redshift of each member, overlapping.
        settings: sizes and training of each member; `fresh` is not possible.
        folder: where pairs, checkpoints and members are kept. An interrupted run goes on from
            there; a member whose file is there is not trained again.
        progress: show progress lines.

    Raises:
        ValueError: windows that do not chain (see `StitchedEmulator.create`), features without
            a redshift, a folder of another run, or simulations that fail.
    """
    windows = check_windows(windows)
    settings = settings or TrainSettings()
    if "redshift" not in target.feature_names:
        raise ValueError(f"expected features with a redshift, got {tuple(target.feature_names)}")
    if settings.fresh:
        raise ValueError("expected settings with fresh=False: pairs are kept and used again")
    key = typed_key(key)
    members, tests = [], []
    for i, (low, high) in enumerate(windows):
        own_key = jax.random.fold_in(key, i)
        own = None if folder is None else Path(folder) / f"window_{i}"
        pairs = simulate_sets(own_key, simulate(low, high), target, settings, folder=own)
        file = None if own is None else own / "member.h5"
        member = finished(file, own_key, settings)
        if member is None:
            member = _train_member(
                own_key, pairs.train, target, (low, high), settings, own, progress
            )
            member = judged(own_key, member, pairs.test, settings)
            if file is not None:
                member.save(file)
                file.with_suffix(".checkpoint").unlink(missing_ok=True)
        members.append(member)
        tests.append(pairs.test)
    features, f10 = (np.concatenate([getattr(t, k) for t in tests]) for k in ("features", "f10"))
    return measure_error(StitchedEmulator.create(members, windows), features, f10)


def _train_member(key, pairs, target, window, settings, folder, progress) -> PhotometricEmulator:
    low, high = (np.array(edge) for edge in target.box or box_of(pairs.features))
    # the window is what the redshifts were drawn from; their extremes fall a little short of it
    z = list(target.feature_names).index("redshift")
    low[z], high[z] = min(low[z], window[0]), max(high[z], window[1])
    scaling = scaling_of(pairs, settings.mu_0)
    member, _ = train_on(
        key,
        jax.tree.map(jnp.asarray, scaled(pairs, scaling, settings.mu_0)),
        target._replace(box=(low, high)),
        scaling,
        settings=settings,
        checkpoint=None if folder is None else folder / "member.checkpoint",
        progress=progress,
        notes={"simulations_not_finite": pairs.n_invalid},
    )
    return member
