"""The model card of a spectrum emulator."""

from typing import Any

import numpy as np

from jaxsed.core.types import Numbers
from jaxsed.emulators.spectral.provabgs import ProvabgsSpectrum
from jaxsed.emulators.validation.spectral import MEAN_RANGE, PERCENT, QUANTILES
from jaxsed.nets import mlp

_EDGES = (2000, 2400, 3000, 3600, 5500, 7410, 10_000, 20_000, 40_000, 60_000)
_SHARES = (0.5, 0.95, 0.99, 0.999, 1.0)


def spectrum_card(emulator: ProvabgsSpectrum, title: str) -> str:
    """A Markdown model card: what is predicted, ranges, errors and training.

    The record must hold `errors` as `jaxsed.weights.make_spectrum_provabgs` measures them.
    """
    record = emulator.provenance
    figures, training = record["errors"], record["training"]
    wave, percentiles = emulator.wave, 100 * np.asarray(emulator.errors.percentiles)
    lines = [
        f"# {title}",
        "",
        f"- Output: {emulator.unit}, at {wave.size} wavelengths from {wave[0]:.0f} to "
        f"{wave[-1]:.0f} Å (the nodes of the SSP grid)",
        f"- Resolution: {emulator.resolution.text}: for photometry and broad shapes, not for "
        "sharp spectra",
        f"- Physics: {record['physics']}; stellar library: {record['ssp']}; birth clouds: "
        f"{record['birth_cloud_age']} Gyr",
        "- Exact, not learned: mass, diffuse dust, burst fraction, and the part of the burst that "
        "happened before the galaxy is seen",
    ]
    for name, what in (("smooth", "NMF component"), ("burst", "Burst")):
        part = getattr(emulator, name)
        sizes = "–".join(str(n) for n in mlp.layer_sizes(part.windows[0].layers))
        components = "/".join(str(n) for n in training[name]["settings"]["components"])
        lines.append(
            f"- {what}: one network {sizes}, {part.windows[0].activation}, for the {components} "
            "principal components of four windows that blend at "
            + ", ".join(f"{joint:g}" for joint in training[name]["settings"]["joints"])
            + " Å"
        )
    lines += [f"- Cite: {citation}" for citation in record["citations"]]
    lines += ["", "## Range of the training set", "", "| component | feature | low | high |"]
    lines += ["|---|---|---|---|"]
    for name in ("smooth", "burst"):
        part = getattr(emulator, name)
        box = zip(part.parameter_names, part.box_low, part.box_high, strict=True)
        lines += [f"| {name} | {n} | {float(a):.4g} | {float(b):.4g} |" for n, a, b in box]
    lines += [
        "",
        "Outside these ranges the prediction is an extrapolation: `emulator.inside(theta)` tells.",
        "",
        f"## Errors on {figures['test_galaxies']} unseen galaxies of the prior",
        "",
        "Largest |emulated / true - 1| in a wavelength range that the given share of the galaxies "
        "stays within, in percent.",
        "",
        f"| Å | {' | '.join(f'{p:g} %' for p in PERCENT)} |",
        f"|---|{'---|' * len(PERCENT)}",
    ]
    for low, high in zip(_EDGES[:-1], _EDGES[1:], strict=True):
        inside = (wave >= low) & (wave < high)
        row = " | ".join(f"{v:.3f}" for v in percentiles[inside].max(0))
        lines.append(f"| {low}–{high} | {row} |")
    red, thick = figures["prior"], figures["training"]
    lines += [
        "",
        f"Beyond 3000 Å: {_percents(red['largest_beyond_3000A'])}; on galaxies of the "
        f"thick-tailed training distribution {_percents(thick['largest_beyond_3000A'])}.",
        "",
        f"Mean |emulated / true - 1| of one galaxy over {MEAN_RANGE[0]:g}–{MEAN_RANGE[1]:g} Å, "
        "in percent:",
        "",
        f"| share of the galaxies below | {' | '.join(f'{100 * s:g} %' for s in _SHARES)} |",
        f"|---|{'---|' * len(_SHARES)}",
        _mean_row("prior", red),
        _mean_row("training distribution", thick),
        "",
        "Change of the error in ln flux across a joint of two windows, and the usual change "
        "between neighbouring wavelengths around it (root mean squares):",
        "",
        "| joint [Å] | across | usual |",
        "|---|---|---|",
        *(
            f"| {row['joint']:g} | {row['jump']:.2e} | {row['usual']:.2e} |"
            for row in figures["joints"]
        ),
        "",
        "## Training",
        "",
    ]
    for name in ("smooth", "burst"):
        lines += [f"- {name}, {k}: {v}" for k, v in sorted(training[name].items())]
    return "\n".join([*lines, ""])


def _percents(values: Numbers) -> str:
    pairs = zip(PERCENT, values, strict=True)
    return ", ".join(f"{100 * v:.3f} % at {p:g} %" for p, v in pairs)


def _mean_row(name: str, figures: dict[str, Any]) -> str:
    values = np.interp(_SHARES, QUANTILES, figures["mean_error_quantiles"])
    return f"| {name} | {' | '.join(f'{100 * v:.4f}' for v in values)} |"
