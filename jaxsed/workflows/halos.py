"""`jaxsed halos`: catalogues of halos in, models and tables of mass functions out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from astropy.table import Table

from jaxsed import halos
from jaxsed.core.errors import user_errors
from jaxsed.halos import forest
from jaxsed.halos.model import TEXT, MassFunctions, flag_text
from jaxsed.io import files
from jaxsed.io.components import class_of
from jaxsed.io.outputs import check_folder, check_table_path, check_writable, save_table
from jaxsed.workflows.progress import (
    checkpoint_of,
    counter,
    save_trained,
    summary_of_flags,
    summary_of_training,
)


def train_file(
    data: Path,
    output: Path,
    network: str,
    *,
    channels: int = 20,
    epochs: int = 100,
    members: int = 1,
    edges: Sequence[float] = halos.EDGES,
    v_peak_min: float = 0.0,
    periodic: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> list[str]:
    """Train on a file of halos with stellar masses and write the model; returns what to tell.

    A killed training goes on from its checkpoints beside the output.

    Raises JaxsedError for files that are not as expected.
    """
    check_writable(output)
    with user_errors():
        found = halos.read_halos(data)
        if network != "resnet":
            kept = halos.fit_baseline(
                found, network, edges=edges, v_peak_min=v_peak_min, seed=seed
            )
            kept.save(output)
            return [f"fitted to {len(found)} boxes: {output}"]
        settings = halos.HaloSettings(
            edges=tuple(edges), v_peak_min=v_peak_min, members=members, periodic=periodic
        )
        resnet = dataclasses.replace(settings.architecture.resnet, width=channels)
        settings = dataclasses.replace(
            settings,
            architecture=dataclasses.replace(settings.architecture, resnet=resnet),
            fit=dataclasses.replace(settings.fit, epochs=epochs, patience=epochs),
        )
        trained, histories = halos.train(
            jax.random.key(seed), found, settings=settings,
            checkpoint=checkpoint_of(output), progress=progress,
        )  # fmt: skip
    save_trained(trained, output)
    figures = trained.record.validation
    apart = f"chi-square of boxes kept apart: {figures['chi2']:.2f}"
    return [*summary_of_training(histories), apart, str(output)]


def predict_file(path: Path, data: Path, table: Path, *, progress: bool = True) -> list[str]:
    """Predict the mass functions of a file of boxes and write a table; returns what to tell.

    The table has a row per box: ``box``, for each bin of log10 stellar mass ``count_<lo>_<hi>``,
    ``count_<lo>_<hi>_std``, ``phi_<lo>_<hi>`` (Mpc^-3 dex^-1) and ``phi_<lo>_<hi>_std``, where the
    training knew of star formation ``quiescent_<lo>_<hi>`` (share of the galaxies) and
    ``log_sfr_<lo>_<hi>`` (mean log10 of Msun/yr of the others), both with ``_std``, then ``flag``
    and ``flag_text``.

    Raises JaxsedError for files that are not as expected.
    """
    check_table_path(table)
    with user_errors():
        boxes = halos.read_halos(data)
        is_baseline = class_of(path) is halos.Baseline
        fitted: Any = (halos.Baseline if is_baseline else halos.HaloModel).load(path)
        found = fitted.predict(boxes, progress=counter(progress, "boxes"))
    save_table(mass_table(boxes.ids, fitted.record.edges, found), table)
    return summary_of_flags(found.flag, TEXT, "boxes", table)


def mass_table(ids: np.ndarray, edges: Sequence[float], found: MassFunctions) -> Table:
    """One row per box; see `predict_file`."""
    table = Table({"box": ids})
    for j, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        for kind in ("count", "phi"):
            name = f"{kind}_{low:g}_{high:g}"
            table[name] = getattr(found, kind)[:, j]
            table[f"{name}_std"] = getattr(found, f"{kind}_std")[:, j]
        for kind, values in (found.formation._asdict() if found.formation else {}).items():
            name = kind.removesuffix("_std")
            table[f"{name}_{low:g}_{high:g}{kind[len(name):]}"] = values[:, j]
    table["flag"] = found.flag
    table["flag_text"] = [flag_text(f) for f in found.flag]
    return table


class ForestOutcome(NamedTuple):
    """What `forest_file` found."""

    lines: list[str]
    """What to tell."""
    figures: dict[str, Any]
    """As in ``forest.json``."""
    truth: np.ndarray
    """[halo] log10 stellar mass of galaxies that the forest never saw."""
    found: np.ndarray
    """[halo] its predictions."""


def forest_file(
    data: Path, output: Path, *, lowest: float = 0.0, seed: int = 0
) -> ForestOutcome:
    """Grow a forest from halos to stellar masses; writes ``forest.h5`` and ``forest.json``.

    Raises JaxsedError for files that are not as expected.
    """
    check_folder(output)
    with user_errors():
        grown, truth, found = forest.fit_forest(
            halos.read_halos(data), lowest=lowest, seed=seed
        )
    output.mkdir(parents=True, exist_ok=True)
    grown.save(output / "forest.h5")
    figures = grown.figures
    files.write_text(output / "forest.json", json.dumps(figures, indent=1))
    ranked = sorted(figures["importance"].items(), key=lambda pair: -pair[1])
    lines = [
        f"{figures['halos'][1]} halos it never saw: R2 {figures['r2']:.3f}, scatter "
        f"{figures['scatter']:.3f} dex (robust {figures['robust_scatter']:.3f}); out of bag "
        f"{figures['out_of_bag']:.3f}",
        "importances: " + ", ".join(f"{name} {share:.2f}" for name, share in ranked),
        str(output),
    ]
    return ForestOutcome(lines, figures, truth, found)


def read_files(
    path: Path,
    output: Path,
    columns: Mapping[str, str],
    *,
    size: float,
    box_size: float,
    hubble: float,
    v_peak_min: float = 0.0,
) -> str:
    """Cut the halos of a table into boxes and write them; returns what to tell.

    Raises JaxsedError for a file that is not as expected; the message names it.
    """
    with user_errors():
        found = halos.read_table(
            path, columns, size=size, box_size=box_size, hubble=hubble, v_peak_min=v_peak_min
        )
    halos.write_halos(output, found)
    return f"{found.box.size} halos in {len(found)} boxes: {output}"
