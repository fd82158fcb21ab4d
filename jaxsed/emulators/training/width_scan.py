"""The record of a series of widths, and which of them is enough (Mathews+ 2023, section 4.1)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from rich.table import Table

from jaxsed.bands.filters import curve_difference
from jaxsed.emulators.photometric.emulator import PhotometricEmulator
from jaxsed.emulators.training.photometric import EmulatorTarget
from jaxsed.emulators.validation.report import without_nan
from jaxsed.emulators.validation.speed import Timing, time_emulator

TWIN = 0.5
"""Bands whose curves differ by less than this (`curve_difference`) are near twins: they see mostly
the same light, so that their errors are alike whatever the network."""


class WidthScaling(NamedTuple):
    """ln sigma = intercept + slope ln N, by least squares over the widths N."""

    intercept: float
    slope: float
    slope_error: float
    """One standard deviation, from the scatter about the line; NaN for fewer than three widths."""

    @classmethod
    def of(cls, widths: ArrayLike, sigma: ArrayLike) -> WidthScaling:
        """From a sigma for each width; NaN for fewer than two that are finite."""
        x, y = np.log(np.asarray(widths, float)), np.log(np.asarray(sigma, float))
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
        if len(x) < 2:
            return cls(math.nan, math.nan, math.nan)
        slope, intercept = np.polyfit(x, y, 1)
        spread = np.sum((x - x.mean()) ** 2)
        scatter = np.sum((y - intercept - slope * x) ** 2)
        error = math.sqrt(scatter / (len(x) - 2) / spread) if len(x) > 2 else math.nan
        return cls(float(intercept), float(slope), error)

    def width_for(self, sigma: float) -> float:
        """The width that has this sigma; infinite if more width does not help."""
        if not self.slope < 0:
            return math.inf
        return math.exp((math.log(sigma) - self.intercept) / self.slope)


class WidthResult(NamedTuple):
    """One width: its errors and what it costs."""

    width: int
    sigma: np.ndarray
    """[band] standard deviation of the AB errors [mag] where the light is far above the softening;
    of the arsinh magnitudes in a band where it never is."""
    sigma_arsinh: np.ndarray
    """[band] of the arsinh magnitudes over all pairs, as in Mathews et al. (2023)."""
    max_mean: float
    """Largest |mean error| of a band [mag]."""
    correlation: float
    """Largest |correlation| between the errors of two bands."""
    correlation_apart: float
    """The same without near twins."""
    correlation_total: float
    """Largest |correlation| between the errors of survey and emulator together: what a likelihood
    neglects that adds the emulator's variance to the survey's band by band."""
    inflation: float
    """Largest eigenvalue of that correlation matrix: by how much this likelihood understates the
    variance of the worst combination of bands. One is perfect."""
    timing: Timing
    training_seconds: float
    validation_loss: float


@dataclasses.dataclass(frozen=True)
class WidthLadder:
    """What `choose_width` found."""

    target: EmulatorTarget
    results: tuple[WidthResult, ...]
    """By increasing width."""
    sigma_survey: np.ndarray
    """[band] uncertainty of the survey [mag]."""
    scaling: tuple[WidthScaling, ...]
    """[band]"""
    scaling_mean: WidthScaling
    """Of the mean of sigma over the bands."""
    chosen: int | None
    """The smallest width that is enough."""
    predicted: float
    """Width at which the scaling brings the worst band below the survey; infinite or NaN if none.
    It says nothing of the correlations."""
    reason: str
    """Why this width, or why none."""

    def table(self) -> Table:
        """A `rich` table: a row per width, the chosen one starred.

        In brackets: correlations without near twins, times with the gradient.
        """
        table = Table(
            title=f"Emulation errors in mag of {len(self.sigma_survey)} bands against width",
            caption=f"ln σ ~ ({self.scaling_mean.slope:.2f} ± {self.scaling_mean.slope_error:.2f}) "
            f"ln N. {self.reason}",
        )
        for heading in (
            "width", "σ median", "σ largest", "of survey", "|mean|", "correlation", "total",
            "inflation", "µs single", "µs batch", "train s",
        ):  # fmt: skip
            table.add_column(heading, overflow="fold")
        for r in self.results:
            worst = int(np.argmax(r.sigma / self.sigma_survey))
            time = r.timing
            table.add_row(
                f"{r.width}{' *' if r.width == self.chosen else ''}",
                f"{np.median(r.sigma):.4f}",
                f"{r.sigma.max():.4f} {self.target.band_names[int(np.argmax(r.sigma))]}",
                f"{r.sigma[worst] / self.sigma_survey[worst]:.2f}",
                f"{r.max_mean:.1e}",
                f"{r.correlation:.2f} ({r.correlation_apart:.2f})",
                f"{r.correlation_total:.2f}",
                f"{r.inflation:.2f}",
                f"{time.value:.3g} ({time.gradient:.3g})",
                f"{time.value_batch:.3g} ({time.gradient_batch:.3g})",
                f"{r.training_seconds:.0f}",
            )
        return table

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        found = {
            "bands": list(self.target.band_names),
            "sigma_survey": self.sigma_survey.tolist(),
            "widths": [
                {
                    **r._asdict(),
                    "sigma": r.sigma.tolist(),
                    "sigma_arsinh": r.sigma_arsinh.tolist(),
                    "timing": r.timing._asdict(),
                }
                for r in self.results
            ],
            "scaling": [s._asdict() for s in self.scaling],
            "scaling_mean": self.scaling_mean._asdict(),
            "chosen": self.chosen,
            "predicted": self.predicted,
            "reason": self.reason,
        }
        return without_nan(found)


def width_result(
    emulator: PhotometricEmulator, features: np.ndarray, sigma_survey: np.ndarray
) -> WidthResult:
    """The record of one measured emulator; it is timed on these features [pair, feature]."""
    arsinh, ab = emulator.error, emulator.error_ab
    measured = np.isfinite(np.asarray(ab.sigma))

    def of(name):
        a, b = (np.asarray(getattr(error, name), float) for error in (ab, arsinh))
        return np.where(measured if a.ndim == 1 else np.isfinite(a), a, b)

    sigma, mean, covariance = of("sigma"), of("mean"), of("covariance")
    training = emulator.record.training
    total = covariance + np.diag(sigma_survey**2)
    return WidthResult(
        width=int(training["settings"]["width"]),
        sigma=sigma,
        sigma_arsinh=np.asarray(arsinh.sigma, float),
        max_mean=float(np.abs(mean).max()),
        correlation=_largest(_correlation(covariance)),
        correlation_apart=_largest(_correlation(covariance), ~near_twins(emulator)),
        correlation_total=_largest(_correlation(total)),
        inflation=float(np.linalg.eigvalsh(_correlation(total))[-1]),
        timing=time_emulator(emulator, features[: 2 * 4096]),
        training_seconds=float(training["training_seconds"]),
        validation_loss=float(training["validation_loss_mag"]),
    )


def judge(
    target: EmulatorTarget,
    results: tuple[WidthResult, ...],
    sigma_survey: np.ndarray,
    max_correlation: float = 0.1,
) -> WidthLadder:
    """The choice from the records of the widths, which come in increasing order."""
    widths = np.array([r.width for r in results])
    sigma = np.array([r.sigma for r in results])
    scaling = tuple(WidthScaling.of(widths, column) for column in sigma.T)
    mean = WidthScaling.of(widths, sigma.mean(1))
    needed = [s.width_for(limit) for s, limit in zip(scaling, sigma_survey, strict=True)]
    predicted = float(np.max(needed))
    chosen, reason = None, ""
    for r in results:
        above = np.flatnonzero(~(r.sigma < sigma_survey))
        if not above.size and r.correlation_total <= max_correlation:
            chosen = r.width
            reason = (
                f"Width {r.width} is enough: its errors are below the survey's in every band and "
                f"correlations of the total errors reach {r.correlation_total:.2f}."
            )
            break
        if above.size:
            worst = int(above[np.argmax((r.sigma / sigma_survey)[above])])
            reason = (
                f"No width is enough: at {r.width}, {above.size} of {len(sigma_survey)} bands "
                f"have errors above the survey's, the worst {target.band_names[worst]} "
                f"({r.sigma[worst]:.3f} against {sigma_survey[worst]:.3f} mag); the scaling "
                f"gives a width of {predicted:.0f}."
            )
        else:
            reason = (
                f"No width is enough: at {r.width} the errors are below the survey's, but "
                f"correlations of the total errors reach {r.correlation_total:.2f} > "
                f"{max_correlation:g}."
            )
    return WidthLadder(
        target, results, sigma_survey, scaling, mean, chosen, predicted, reason
    )  # fmt: skip


def near_twins(emulator: PhotometricEmulator) -> np.ndarray:
    """[band, band] whether two bands see mostly the same light; the diagonal is True."""
    curves, n = emulator.record.curves, len(emulator.band_names)
    twins = np.eye(n, dtype=bool)
    for i in range(len(curves)):
        for j in range(i):
            apart = curves[i].wave[-1] < curves[j].wave[0] or curves[j].wave[-1] < curves[i].wave[0]
            twins[i, j] = twins[j, i] = not apart and curve_difference(curves[i], curves[j]) < TWIN
    return twins


def _correlation(covariance):
    scale = np.sqrt(np.diag(covariance))
    return covariance / np.outer(scale, scale)


def _largest(correlation, counted=None) -> float:
    counted = ~np.eye(len(correlation), dtype=bool) if counted is None else counted
    values = np.abs(correlation[counted])
    return float(np.max(values, initial=0.0))
