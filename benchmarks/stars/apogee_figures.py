"""The figures of `apogee.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxsed.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    RED,
    SKY,
    new_figure,
    plain_numbers,
    styled,
)

SHOWN = ("teff", "logg", "fe", "Mg", "Al", "C", "Na", "Ti")
"""Labels in the figures of scatter."""

PARAMETERS = ("teff", "logg", "fe")

COLOURS = {"censored": BLUE, "bcnn": ORANGE}


def draw(out: dict[str, Any], planes: dict[str, np.ndarray], training: Any, folder: Path) -> None:
    """Write every figure for which there are numbers.

    Args:
        out: what `apogee.py` writes.
        planes: [star, 2] of [Mg/Fe] and [Al/Fe] by name.
        training: lowest and highest temperature of the restricted training.
        folder: where to.
    """
    rows = out["networks"]
    made = {
        "scatter_by_size": by_size(out["labels"], rows),
        "scatter_by_signal": by_signal(out["labels"], rows),
        "outside": outside(out["labels"], rows, training),
        "aluminium_magnesium": plane(planes, out["al_mg"]),
        "uncertainties": uncertainties(rows),
    }
    for name, figure in made.items():
        if figure is not None:
            figure.savefig(folder / f"{name}.png")


def _panels(count: int) -> tuple[Any, list[Any]]:
    columns = min(4, count)
    lines = -(-count // columns)
    figure = new_figure(2.7 * columns, 2.3 * lines)
    return figure, [figure.add_subplot(lines, columns, i + 1) for i in range(count)]


def _legend(figure: Any) -> None:
    """Above all panels, of the first one's lines."""
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=4)


@styled
def by_size(names: Any, rows: dict[str, Any]) -> Any:
    """Robust scatter of a label against the number of training stars; None for one size."""
    if all(len(row["sizes"]) < 2 for row in rows.values()):
        return None
    figure, axes = _panels(len(SHOWN))
    for ax, name in zip(axes, SHOWN, strict=True):
        j = list(names).index(name)
        for kind, row in rows.items():
            for test, style in (("high", "o-"), ("low", "s--")):
                y = [found[test]["scatter"][j] for found in row["sizes"].values()]
                ax.plot(list(row["sizes"]), y, style, ms=3, color=COLOURS.get(kind, GREEN),
                        label=f"{kind}, {test} S/N")  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        plain_numbers(ax.xaxis)
        plain_numbers(ax.yaxis)
        ax.set_title(name)
    _legend(figure)
    figure.supxlabel("training stars", fontsize=9)
    figure.supylabel("robust scatter about the truth", fontsize=9)
    return figure


@styled
def by_signal(names: Any, rows: dict[str, Any]) -> Any:
    """Scatter and median uncertainty of a label against the signal-to-noise ratio."""
    rows = {kind: row for kind, row in rows.items() if "by_signal" in row}
    if not rows:
        return None
    figure, axes = _panels(len(SHOWN))
    for ax, name in zip(axes, SHOWN, strict=True):
        j = list(names).index(name)
        for kind, row in rows.items():
            snr = [b["snr"] for b in row["by_signal"]]
            colour = COLOURS.get(kind, GREEN)
            for what, style in (("scatter", "o"), ("std", "-")):
                ax.plot(snr, [b[what][j] for b in row["by_signal"]], style, ms=4, color=colour,
                        label=f"{kind}: {'uncertainty' if what == 'std' else what}")  # fmt: skip
        ax.set_ylim(0, None)
        ax.set_title(name)
    _legend(figure)
    figure.supxlabel("signal-to-noise ratio of a pixel", fontsize=9)
    figure.supylabel("about the truth", fontsize=9)
    return figure


@styled
def outside(names: Any, rows: dict[str, Any], training: Any) -> Any:
    """Uncertainty and scatter against temperature, for the restricted training (shaded)."""
    rows = {kind: row for kind, row in rows.items() if "outside" in row}
    if not rows:
        return None
    figure = new_figure(10.0, 2.4 * len(rows))
    for i, (kind, row) in enumerate(rows.items()):
        for k, name in enumerate(PARAMETERS):
            j = list(names).index(name)
            ax = figure.add_subplot(len(rows), 3, 3 * i + k + 1)
            ax.axvspan(*training, color=PALE, alpha=0.6, lw=0)
            teff = [b["teff"] for b in row["outside"]["bins"]]
            for what, colour, text in (
                ("std", BLUE, "uncertainty"), ("scatter", RED, "scatter"),
                ("bias", ORANGE, "|bias|"),
            ):  # fmt: skip
                y = np.abs([b[what][j] for b in row["outside"]["bins"]])
                ax.plot(teff, y, "o-", ms=3, color=colour, label=text)
            ax.set_title(f"{kind}: {name}")
            ax.set_yscale("log")
            plain_numbers(ax.yaxis)
            # A bias that crosses zero has no lower end.
            ax.set_ylim(0.3 * min(b["scatter"][j] for b in row["outside"]["bins"]), None)
    _legend(figure)
    figure.supxlabel("true effective temperature [K]", fontsize=9)
    return figure


@styled
def plane(planes: dict[str, np.ndarray], trends: dict[str, Any]) -> Any:
    """[Al/Fe] against [Mg/Fe] of stars of a kind that the training (grey) has not."""
    shown = [name for name in planes if name != "training"]
    figure = new_figure(3.2 * len(shown), 3.0)
    colours = {"truth": BLACK, **COLOURS}
    for i, name in enumerate(shown):
        ax = figure.add_subplot(1, len(shown), i + 1)
        ax.plot(*planes["training"].T, ".", ms=1, color=PALE, label="training")
        ax.plot(*planes[name].T, ".", ms=2, color=colours.get(name, GREEN), label=name)
        ax.set_xlim(-0.45, 0.55)
        ax.set_ylim(-0.6, 0.9)
        ax.set_xlabel("[Mg/Fe]")
        ax.set_title(f"{name}: slope {trends[name]['slope']:.2f}, "
                     f"correlation {trends[name]['correlation']:.2f}")  # fmt: skip
        if i == 0:
            ax.set_ylabel("[Al/Fe]")
            ax.legend(loc="lower left", markerscale=4)
    return figure


@styled
def uncertainties(rows: dict[str, Any]) -> Any:
    """Coverage and density by method, high signal-to-noise beside low."""
    row = next((r["uncertainties"] for r in rows.values() if "uncertainties" in r), None)
    if row is None:
        return None
    figure = new_figure(10.0, 2.6)
    place = np.arange(len(row))
    parts = (("68.3 %", 0, 0.683), ("95.4 %", 1, 0.954), ("minus log density", None, None))
    for k, (title, which, level) in enumerate(parts):
        ax = figure.add_subplot(1, 3, k + 1)
        for test, shift in (("high", -0.15), ("low", 0.15)):
            for how, colour in (("alone", SKY), ("calibrated", BLUE)):
                found = [m[test][how] for m in row.values()]
                y = [f["nll"] if which is None else f["coverage"][which] for f in found]
                ax.plot(place + shift, y, "o" if test == "high" else "s", ms=4, color=colour,
                        label=f"{how}, {test} S/N")  # fmt: skip
        if level:
            ax.axhline(level, color=GREY, lw=0.7)
        ax.set_xticks(place, [n.replace(", ", ",\n").replace(" of", "\nof") for n in row])
        ax.tick_params(axis="x", labelsize=6)
        ax.set_title(f"coverage of the {title} interval" if level else title)
    _legend(figure)
    return figure
