"""Which flow knows the galaxies of a run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jaxsed.catalog.config import Config
from jaxsed.core.errors import JaxsedError
from jaxsed.infer import amortised
from jaxsed.infer.amortised import Amortised

PREFIX = "flow_"


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


def find_flow(config: Config, bands: Sequence[str], *, free_redshift: bool) -> Amortised | None:
    """The flow that is configured, or a shipped one of this model that knows all the bands.

    Of several shipped ones, that with the fewest other bands: bands that a run lacks are a part of
    a flow's training, but a small one.

    Raises JaxsedError for a configured file that cannot be read or is of another model or bands.
    """
    name = config.sampler.flow
    if name == "shipped":
        known = [amortised.load(shipped) for shipped in flow_files()]
        fitting = [f for f in known if not _misfit(f, config, bands, free_redshift)]
        if not fitting:
            return None
        return min(fitting, key=lambda found: len(found.record.bands)).select(bands)
    path = config.find_file(name)
    if path is None:
        raise JaxsedError(f"[sampler] flow = {name!r}: no such file.")
    try:
        found = amortised.load(path)
    except ValueError as error:
        raise JaxsedError(f"[sampler] flow = {name!r}: {error}.") from error
    if misfit := _misfit(found, config, bands, free_redshift):
        raise JaxsedError(f"[sampler] flow = {name!r}: {misfit}.")
    return found.select(bands)


def _misfit(found: Amortised, config: Config, bands: Sequence[str], free_redshift: bool) -> str:
    """Why a flow is not for this run; empty if it is."""
    record = found.record
    if record.model != config.model.physics:
        return f"it is of the model {record.model}, not {config.model.physics}"
    if found.context.free_redshift != free_redshift:
        return "its redshift is " + ("free" if found.context.free_redshift else "known")
    unknown = [band for band in bands if band not in record.bands]
    return f"it does not know {', '.join(unknown)}" if unknown else ""
