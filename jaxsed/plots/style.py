"""How every picture looks: colours, type, axes, and the names of quantities with their units."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from jaxsed.core.types import Numbers
from jaxsed.io import files

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

# Okabe & Ito (2008): told apart with every kind of colour vision.
BLACK, GREY, PALE = "#000000", "#767676", "#D9D9D9"
BLUE, ORANGE, GREEN, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"

STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "mathtext.fontset": "dejavusans",
}
DPI = 130

# name -> text with the unit
LABELS = {
    "log_mass_surviving": r"$\log_{10}\,(M_\mathrm{surviving}\,/\,M_\odot)$",
    "log_mass_formed": r"$\log_{10}\,(M_\mathrm{formed}\,/\,M_\odot)$",
    "log_sfr_10myr": r"$\log_{10}\,(\mathrm{SFR_{10\,Myr}}\,/\,M_\odot\,\mathrm{yr}^{-1})$",
    "log_sfr_100myr": r"$\log_{10}\,(\mathrm{SFR_{100\,Myr}}\,/\,M_\odot\,\mathrm{yr}^{-1})$",
    "log_sfr_1gyr": r"$\log_{10}\,(\mathrm{SFR_{1\,Gyr}}\,/\,M_\odot\,\mathrm{yr}^{-1})$",
    "log_z_mw": r"$\log_{10}\,(Z_\mathrm{mass\ weighted}\,/\,Z_\odot)$",
    "log_z": r"$\log_{10}\,(Z\,/\,Z_\odot)$",
    "t_age_mw": "mass-weighted age [Gyr]",
    "t50": r"$t_{50}$ lookback [Gyr]",
    "t90": r"$t_{90}$ lookback [Gyr]",
    "a_v": r"$A_V$ [mag]",
    "beta": r"$\beta$",
    "f_burst": r"$f_\mathrm{burst}$",
    "t_burst": r"$t_\mathrm{burst}$ [Gyr]",
    "gamma1": r"$\gamma_1$",
    "gamma2": r"$\gamma_2$",
    "dust1": r"$\tau_\mathrm{birth\ cloud}$",
    "dust2": r"$\tau_\mathrm{diffuse}$",
    "dust1_fraction": r"$\tau_\mathrm{birth\ cloud}\,/\,\tau_\mathrm{diffuse}$",
    "dust_index": r"$n_\mathrm{dust}$",
    "log_sfr_ratios": r"$\log_{10}$ SFR ratio",
    "redshift": "redshift",
    "rhat_max": r"largest $\hat R$",
    "ess_bulk_min": "smallest bulk ESS [draws]",
    "ess_tail_min": "smallest tail ESS [draws]",
}
# where a panel is small
SHORT = {
    "log_mass_surviving": "$\\log_{10}\\,M_\\mathrm{surviving}$\n$[M_\\odot]$",
    "log_mass_formed": "$\\log_{10}\\,M_\\mathrm{formed}$\n$[M_\\odot]$",
    "log_sfr_10myr": "$\\log_{10}\\,\\mathrm{SFR_{10\\,Myr}}$\n$[M_\\odot\\,\\mathrm{yr}^{-1}]$",
    "log_sfr_100myr": "$\\log_{10}\\,\\mathrm{SFR_{100\\,Myr}}$\n$[M_\\odot\\,\\mathrm{yr}^{-1}]$",
    "log_sfr_1gyr": "$\\log_{10}\\,\\mathrm{SFR_{1\\,Gyr}}$\n$[M_\\odot\\,\\mathrm{yr}^{-1}]$",
    "log_z_mw": "$\\log_{10}\\,Z_\\mathrm{mw}$\n$[Z_\\odot]$",
    "t_age_mw": "$t_\\mathrm{mw}$\n[Gyr]",
    "dust1": r"$\tau_\mathrm{bc}$",
    "dust1_fraction": r"$\tau_\mathrm{bc}\,/\,\tau_\mathrm{diffuse}$",
}


def label(name: str, *, short: bool = False) -> str:
    """A quantity's name and unit for an axis; `name_3` is component 3 of a vector."""
    if short and name in SHORT:
        return SHORT[name]
    if name in LABELS:
        return LABELS[name]
    stem, _, component = name.rpartition("_")
    if stem in LABELS and component.isdigit():
        return f"{LABELS[stem]} {component}" if stem != "beta" else rf"$\beta_{{{component}}}$"
    return name


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Run a drawing function in jaxsed's style and leave the user's settings as they were."""

    @wraps(draw)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return run


def new_figure(width: float, height: float, *, layout: Any = "constrained") -> Figure:
    """A figure of this size in inches that pyplot does not know."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout, dpi=DPI)


def plain_numbers(axis: Axis) -> None:
    """Tick labels such as 0.02 and 300 on a logarithmic axis, and few of them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    axis.set_major_formatter(lambda value, position: f"{value:.10g}")
    axis.set_minor_formatter(NullFormatter())


def wave_axis(axes: Axes, wave: Numbers) -> None:
    """Logarithmic wavelengths in micron (`wave` in Angstrom), labelled in plain numbers."""
    import numpy as np
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    low, high = np.min(wave) / 1e4 / 1.25, np.max(wave) / 1e4 * 1.25
    if high < 2.5 * low:  # a single band, or a few close ones
        low, high = low / 1.3, high * 1.3
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    nice = np.array([0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20])
    nice = np.concatenate([nice, 10 * nice[nice >= 3]])
    ticks = nice[(nice > low) & (nice < high)]
    while len(ticks) > 8:  # every other one, on a wide axis
        ticks = ticks[::2]
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("observed wavelength [µm]")


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure to a file, whole or not at all; the suffix of its name is the format.

    `options` are those of ``Figure.savefig``.
    """
    with files.replacing(path) as new:
        figure.savefig(new, format=path.suffix.removeprefix(".") or None, **options)
