"""Pictures of a whole run: diagnostics, comparison of two sets of values, and all PNGs at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaxsed.core.types import Numbers
from jaxsed.learn.calibration import robust_scatter
from jaxsed.plots import galaxy
from jaxsed.plots.data import Run, fitted
from jaxsed.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    RED,
    label,
    new_figure,
    save_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

CLEAR = "no flag"
WORST_RHAT, WORST_CHI2 = 1.1, 10.0  # histograms end here; the last bin holds what is beyond
MANY = 300  # points beyond which each is small and pale


def _bins(values: Array) -> list[float]:
    return np.histogram_bin_edges(values, min(40, max(8, int(np.sqrt(values.size))))).tolist()


def _histogram(
    axes: Axes, values: Array, bins: list[float], *, color: str = BLUE, name: str | None = None
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.hist(values, bins, histtype="stepfilled", color=color, alpha=0.35, lw=0)
    axes.hist(values, bins, histtype="step", color=color, lw=1.2, label=name)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _beyond(values: Array, limit: float) -> str:
    count = int(np.count_nonzero(values > limit))
    return f"  (last bin: {count} beyond {limit:g})" if count else ""


def _bar_line(axes: Axes, value: float, words: str) -> None:
    axes.axvline(value, color=RED, ls="--", lw=1.0, label=words)


def _scatter(axes: Axes, x: Array, y: Array, flagged: Array) -> None:
    many = len(x) > MANY
    size, alpha = (2.0, 0.4) if many else (4.0, 0.8)
    options: dict[str, Any] = {
        "ls": "",
        "marker": "o",
        "ms": size,
        "alpha": alpha,
        "mew": 0,
        "rasterized": many,
    }
    for chosen, color, words in ((~flagged, BLUE, CLEAR), (flagged, ORANGE, "flagged")):
        if chosen.any():
            axes.plot(x[chosen], y[chosen], color=color, label=words, **options)


@styled
def catalog(results: Run) -> Figure:
    """Overview of a run: convergence, goodness of fit, flags, masses and star formation rates.

    Dashed lines are the convergence criterion.  Raises ValueError if no row was fitted.
    """
    from jaxsed.infer import ESS_MIN, RHAT_MAX

    done = fitted(results)
    if not done.any():
        raise ValueError(f"{str(results.path)!r}: no row was fitted.")
    rhat = results.diagnostic("rhat_max")
    figure = new_figure(10.0, 5.8)
    axes = figure.subplots(2, 3)
    rhat_axes, ess_axes, chi2_axes = axes[0]
    flag_axes, mass_axes, sfr_axes = axes[1]

    values = rhat[done & np.isfinite(rhat)]
    shown = np.minimum(values, WORST_RHAT)
    _histogram(rhat_axes, shown, _bins(shown))
    _bar_line(rhat_axes, RHAT_MAX, f"bar: {RHAT_MAX}")
    rhat_axes.set_xlabel(label("rhat_max") + _beyond(values, WORST_RHAT))

    ess = {}
    for name in ("bulk", "tail"):
        values = results.diagnostic(f"ess_{name}_min")
        ess[name] = np.log10(values[done & np.isfinite(values) & (values > 0)])
    bins = _bins(np.concatenate(list(ess.values())))
    for (name, values), color in zip(ess.items(), (BLUE, ORANGE), strict=True):
        _histogram(ess_axes, values, bins, color=color, name=name)
    _bar_line(ess_axes, np.log10(ESS_MIN), f"bar: {ESS_MIN:.0f}")
    ess_axes.set_xlabel(r"$\log_{10}$ smallest effective sample size [draws]")

    reduced = results.diagnostic("chi2") / np.maximum(results.diagnostic("n_detected"), 1)
    reduced = reduced[done & np.isfinite(reduced)]
    shown = np.minimum(reduced, WORST_CHI2)
    _histogram(chi2_axes, shown, _bins(shown))
    chi2_axes.set_xlabel(r"best $\chi^2$ / detected bands" + _beyond(reduced, WORST_CHI2))
    for one in axes[0]:
        one.set_ylabel("galaxies")
        if one.get_legend_handles_labels()[0]:
            one.legend(loc="best")

    _flags(flag_axes, results)
    flagged = results.flags[done] != 0
    mass = results.summary("log_mass_surviving")[done, 1]
    redshift = np.asarray(results.table["redshift"], float)[done]
    _scatter(mass_axes, redshift, mass, flagged)
    mass_axes.set_xlabel(label("redshift"))
    mass_axes.set_ylabel(label("log_mass_surviving"))
    sfr = results.summary("log_sfr_100myr")[done, 1]
    _scatter(sfr_axes, mass, sfr, flagged)
    sfr_axes.set_xlabel(label("log_mass_surviving"))
    sfr_axes.set_ylabel(label("log_sfr_100myr"))
    finite = np.isfinite(sfr)
    if finite.any():  # quenched galaxies reach rates that mean nothing but zero
        top = float(sfr[finite].max())
        sfr_axes.set_ylim(max(float(sfr[finite].min()), top - 8.0) - 0.3, top + 0.3)
    if flagged.any():
        mass_axes.legend(loc="best")
    good = int(np.count_nonzero(results.flags == 0))
    figure.suptitle(
        f"{results.path.name}: {len(results)} rows, {int(done.sum())} fitted, "
        f"{good} without a flag",
        x=0.01, ha="left", fontsize=10,
    )  # fmt: skip
    return figure


def _flags(axes: Axes, results: Run) -> None:
    """Rows with each flag, in its words, longest bar on top."""
    texts = Counter(
        words for text in results.table["flag_text"] for words in str(text).split("; ") if words
    )
    counts = {CLEAR: int(np.count_nonzero(results.flags == 0)), **texts}
    shown = sorted((n, name) for name, n in counts.items())
    names = [fill(name, 26) for _, name in shown]
    values = [n for n, _ in shown]
    colors = [BLUE if name == CLEAR else ORANGE for name in names]
    axes.barh(names, values, color=colors, height=0.6)
    for position, value in enumerate(values):
        axes.annotate(
            f" {value}", (value, position), va="center", fontsize=8, annotation_clip=False
        )
    axes.set_xlabel("rows")
    axes.margins(x=0.12)


@styled
def compare(
    x: Numbers,
    y: Numbers,
    labels: tuple[str, str],
    *,
    x_error: Any = None,
    y_error: Any = None,
) -> Figure:
    """Two estimates of one quantity: one against the other, and their difference below.

    The offset is the median of y - x and the scatter 1.4826 times the median absolute deviation
    from it, so that outliers do not rule them.

    Args:
        x: [n] the reference.
        y: [n] what is compared with it; pairs with a NaN are left out.
        labels: what x and y are, with units.
        x_error: [n] or [2, n] (below, above), as in matplotlib's errorbar.
        y_error: the same for y.

    Raises ValueError for arrays of different lengths or without a finite pair.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"expected x and y [n] of equal length, got {x.shape} and {y.shape}")
    used = np.isfinite(x) & np.isfinite(y)
    if not used.any():
        raise ValueError("expected at least one pair of finite values, got none")
    offset, scatter = offset_and_scatter(x, y)
    errors = [None if e is None else np.asarray(e, float)[..., used] for e in (x_error, y_error)]
    x, y = x[used], y[used]
    many = len(x) > MANY
    options: dict[str, Any] = {
        "fmt": "o", "color": BLUE, "ms": 2.0 if many else 4.0, "alpha": 0.4 if many else 0.85,
        "mew": 0, "elinewidth": 0.5 if many else 0.8, "ecolor": GREY, "rasterized": many,
    }  # fmt: skip
    figure = new_figure(4.4, 5.4)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.2])
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, high + margin
    top.plot([low, high], [low, high], color=BLACK, lw=0.9, label="one to one")
    top.errorbar(x, y, xerr=errors[0], yerr=errors[1], **options)
    top.set_xlim(low, high)
    top.set_ylim(low, high)
    top.set_ylabel(labels[1])
    count = f"{len(x)} galaxies" if len(x) != 1 else "1 galaxy"
    top.set_title(f"{count}    offset {offset:+.3f}    scatter {scatter:.3f}")
    top.legend(loc="upper left")

    bottom.axhline(0, color=BLACK, lw=0.9)
    low, high = offset - scatter, offset + scatter
    bottom.axhspan(low, high, color=ORANGE, alpha=0.25, lw=0, label="scatter")
    bottom.axhline(offset, color=ORANGE, lw=1.2, label="offset")
    bottom.errorbar(x, y - x, yerr=errors[1], **options)
    reach = float(np.max(np.abs(np.percentile(y - x, [0.5, 99.5])), initial=3 * scatter)) or 0.1
    bottom.set_ylim(-1.15 * reach, 1.15 * reach)
    bottom.set_ylabel("difference")
    bottom.set_xlabel(labels[0])
    bottom.legend(loc="lower right", bbox_to_anchor=(1.02, 0.96), ncols=2, fontsize=7)
    return figure


def offset_and_scatter(x: Numbers, y: Numbers) -> tuple[float, float]:
    """Median of y - x [n] and 1.4826 times its median absolute deviation, without NaN pairs."""
    difference = np.asarray(y, float) - np.asarray(x, float)
    difference = difference[np.isfinite(difference)]
    return float(np.median(difference)), robust_scatter(difference)


def _file_names(results: Run, rows: Iterable[int]) -> list[tuple[int, str]]:
    """(row, beginning of a file name): the id without what a file system minds."""
    named = []
    seen: set[str] = set()
    for row in rows:
        name = re.sub(r"[^\w.+-]+", "_", str(results.ids[row])).strip(".") or f"row{row}"
        if name.lower() in seen:
            name = f"{name}_row{row}"
        seen.add(name.lower())
        named.append((row, name))
    return named


def save_all(
    results: Run,
    folder: str | Path,
    ids: Sequence[Any] | None = None,
    *,
    limit: int = 20,
    kinds: Sequence[str] = ("sed", "sfh", "corner"),
    progress: bool = True,
) -> list[Path]:
    """Write ``catalog.png``, and ``ID_sed.png``, ``ID_sfh.png``, ``ID_corner.png`` per galaxy.

    Args:
        results: a finished run.
        folder: made where it is not there; pictures of the same names are replaced.
        ids: the galaxies; without it the first `limit` that were fitted.
        limit: see `ids`.
        kinds: which pictures of a galaxy.
        progress: show a bar on standard error.

    Returns the paths written.  A picture with nothing to show (a run that keeps no histories) is
    left out; galaxies of `ids` that were not fitted raise ValueError.
    """
    for kind in kinds:
        if kind not in ("sed", "sfh", "corner"):
            raise ValueError(f"no picture {kind!r}: expected sed, sfh or corner.")
    done = np.flatnonzero(fitted(results))
    rows = done[:limit] if ids is None else [results.row(name) for name in ids]
    left_out = [str(results.ids[row]) for row in rows if row not in done]
    if left_out:
        raise ValueError(f"not fitted, so there is nothing to draw: {', '.join(left_out)}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def save(figure: Figure, name: str) -> None:
        save_figure(figure, folder / name)
        written.append(folder / name)

    from rich.console import Console
    from rich.progress import track

    if len(done):
        save(catalog(results), "catalog.png")
    for row, name in track(
        _file_names(results, rows),
        description="Drawing",
        console=Console(stderr=True),
        disable=not progress,
        transient=True,
    ):
        for kind in kinds:
            if kind == "sfh" and "sfr" not in results.quantities:
                continue
            save(getattr(galaxy, kind)(results, row=row), f"{name}_{kind}.png")
    return written
