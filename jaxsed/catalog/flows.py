"""Which flow knows the galaxies of a run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jaxsed.core.errors import JaxsedError
from jaxsed.infer import amortised
from jaxsed.infer.amortised import Amortised

PREFIX = "flow_"
SHIPPED = "shipped"
"""Stands for the flows of the package."""


def flow_files() -> list[Path]:
    """Flows that come with the package."""
    return sorted(Path(str(resources.files("jaxsed.weights"))).glob(f"{PREFIX}*.h5"))


def shipped_flow(name: str) -> Path:
    """The file of a flow that comes with the package, by the name after ``flow_``.

    Raises ValueError listing the known ones.
    """
    known = {path.stem.removeprefix(PREFIX): path for path in flow_files()}
    if name not in known:
        raise ValueError(f"no flow {name!r}: known are {', '.join(known)}")
    return known[name]


def find_flow(
    source: str | Path, model: str, bands: Sequence[str], *, free_redshift: bool
) -> Amortised | None:
    """The flow of a file, or a shipped one of this model that knows all the bands.

    Of several shipped ones, that with the fewest other bands: bands that a run lacks are a part of
    a flow's training, but a small one.

    Args:
        source: a file, or "shipped".
        model: name of the galaxy model.
        bands: of the run.
        free_redshift: whether the redshift is sampled.

    Raises JaxsedError for a file that cannot be read or is of another model or bands.
    """
    if source == SHIPPED:
        known = [amortised.load(shipped) for shipped in flow_files()]
        fitting = [f for f in known if not _misfit(f, model, bands, free_redshift)]
        if not fitting:
            return None
        return min(fitting, key=lambda found: len(found.record.bands)).select(bands)
    try:
        found = amortised.load(source)
    except ValueError as error:
        raise JaxsedError(f"[sampler] flow = {str(source)!r}: {error}.") from error
    if misfit := _misfit(found, model, bands, free_redshift):
        raise JaxsedError(f"[sampler] flow = {str(source)!r}: {misfit}.")
    return found.select(bands)


def _misfit(found: Amortised, model: str, bands: Sequence[str], free_redshift: bool) -> str:
    """Why a flow is not for this run; empty if it is."""
    record = found.record
    if record.model != model:
        return f"it is of the model {record.model}, not {model}"
    if found.context.free_redshift != free_redshift:
        return "its redshift is " + ("free" if found.context.free_redshift else "known")
    unknown = [band for band in bands if band not in record.bands]
    return f"it does not know {', '.join(unknown)}" if unknown else ""
