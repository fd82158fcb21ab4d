"""An emulator's measured errors as a table, as JSON and as a model card."""

import math
from typing import Any

import numpy as np
from rich.table import Table

from jaxsed.emulators.photometric.emulator import PhotometricEmulator
from jaxsed.emulators.photometric.stitched import StitchedEmulator
from jaxsed.emulators.validation.errors import ABSOLUTE_PERCENT, SIGMA_LEVELS, ErrorSummary
from jaxsed.nets import mlp

Emulator = PhotometricEmulator | StitchedEmulator


def error_report(emulator: Emulator) -> dict:
    """The measured errors as JSON types: per band, and the largest and median over the bands."""
    return {
        "bands": list(emulator.band_names),
        "unit": "mag, emulated minus simulated",
        "sigma_levels": list(SIGMA_LEVELS),
        "absolute_percent": list(ABSOLUTE_PERCENT),
        "arsinh": error_summary(emulator.error),
        "ab_where_bright": error_summary(emulator.error_ab),
        "training": dict(emulator.record.training),
    }


def error_summary(error: ErrorSummary) -> dict:
    """An `ErrorSummary` as JSON types, with None for NaN."""
    columns = {name: np.asarray(values, float) for name, values in vars(error).items()}
    sigmas = [float(sigma) for sigma in columns["sigma"] if math.isfinite(sigma)]
    lists = {name: without_nan(values.tolist()) for name, values in columns.items()}
    return {
        **lists,
        "largest_sigma": max(sigmas, default=None),
        "median_sigma": float(np.median(sigmas)) if sigmas else None,
        "largest_correlation": largest_correlation(error),
    }


def without_nan(values: Any) -> Any:
    """Nested lists and dictionaries with None, which JSON knows, for NaN, which it does not."""
    if isinstance(values, dict):
        return {name: without_nan(value) for name, value in values.items()}
    if isinstance(values, list):
        return [without_nan(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def largest_correlation(error: ErrorSummary) -> float:
    """Largest |correlation| between the errors of two bands; zero for a single band.

    Far below one, the errors may be added to the noise band by band.
    """
    sigma, covariance = np.asarray(error.sigma), np.asarray(error.covariance)
    correlation = covariance / np.outer(sigma, sigma)
    off_diagonal = np.abs(correlation[~np.eye(len(sigma), dtype=bool)])
    finite = off_diagonal[np.isfinite(off_diagonal)]
    return float(finite.max()) if finite.size else 0.0


_HEADINGS = (
    "band", "mean", "σ", *(f"{percent:g} %" for percent in ABSOLUTE_PERCENT), "bright", "σ (AB)",
)  # fmt: skip


def _rows(emulator):
    error, ab = emulator.error, emulator.error_ab
    for i, name in enumerate(emulator.band_names):
        numbers = [error.mean[i], error.sigma[i], *error.absolute[i]]
        yield (
            name, *(f"{float(v):.4f}" for v in numbers),
            f"{float(ab.fraction[i]):.1%}", f"{float(ab.sigma[i]):.4f}",
        )  # fmt: skip


def error_table(emulator: Emulator) -> Table:
    """A `rich` table of the errors [mag]: mean, sigma, and |error| of 68 to 99.9 % of the pairs.

    "bright" is the part of the pairs far above the softening, whose AB errors the last column has.
    """
    table = Table(title="Emulation errors [mag]")
    for i, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if i == 0 else "right")
    for row in _rows(emulator):
        table.add_row(*row)
    return table


def _networks(emulator: Emulator) -> list[str]:
    if isinstance(emulator, PhotometricEmulator):
        return [f"- Network: {_network(emulator)}"]
    windows = np.asarray(emulator.windows)
    return [
        f"- Network for redshifts {low:g} to {high:g}: {_network(member)}"
        for member, (low, high) in zip(emulator.members, windows, strict=True)
    ]


def _network(emulator: PhotometricEmulator) -> str:
    return f"{'–'.join(map(str, mlp.layer_sizes(emulator.layers)))}, {emulator.activation}"


def _recorded(value: Any, unit: str = "") -> str:
    return "not recorded" if value is None else f"{value}{unit}"


def model_card(emulator: Emulator, title: str) -> str:
    """A Markdown model card: what the emulator predicts, its ranges, errors and training."""
    record = emulator.record
    box = zip(emulator.feature_names, emulator.box_low, emulator.box_high, strict=True)
    lines = [
        f"# {title}",
        "",
        f"- Physics: {record.physics or 'not recorded'}; stellar library: "
        f"{record.ssp or 'not recorded'}",
        f"- Birth clouds: {_recorded(record.birth_cloud_age, ' Gyr')}; absorption between the "
        f"galaxies: {_recorded(record.igm)}",
        *_networks(emulator),
        f"- Output: arsinh magnitudes (softening {emulator.mu_0:g} mag) of 10^10 Msun formed at "
        "10 pc",
        *(f"- Cite: {citation}" for citation in record.citations),
        "",
        "## Range of the training set",
        "",
        "| feature | low | high |",
        "|---|---|---|",
        *(f"| {name} | {float(low):.4g} | {float(high):.4g} |" for name, low, high in box),
        "",
        "Outside these ranges the prediction is an extrapolation: `emulator.inside(theta)` tells.",
        "",
        "## Errors on unseen pairs",
        "",
        "Emulated minus simulated [mag]; columns in percent hold |error| of that share of the "
        "pairs; “bright” is the share far above the softening, whose AB errors the last column "
        "has.",
        "",
        f"| {' | '.join(_HEADINGS)} |",
        f"|{'---|' * len(_HEADINGS)}",
        *(f"| {' | '.join(row)} |" for row in _rows(emulator)),
        "",
        f"Largest correlation between the errors of two bands: "
        f"{largest_correlation(emulator.error):.2f}.",
        "",
        "## Training",
        "",
        *(f"- {name}: {value}" for name, value in sorted(record.training.items())),
        "",
    ]
    return "\n".join(lines)
