"""A configuration resolved: what it asks for as objects, after which no file reads a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxsed import infer, params
from jaxsed.bands.filters import Filter, load_filter
from jaxsed.catalog.config.sections import AUTO, Config, SamplerConfig
from jaxsed.catalog.flows import SHIPPED
from jaxsed.catalog.predictors import ModelChoice
from jaxsed.catalog.tables import Column, Reader
from jaxsed.core.errors import JaxsedError
from jaxsed.cosmology import COSMOLOGIES
from jaxsed.infer.samplers.base import Method
from jaxsed.sps.models.registry import GalaxyFamily, family

FREE_REDSHIFT = (0.01, 4.0)
"""Prior of a free redshift, uniform, where the configuration has none."""


@dataclass(frozen=True)
class FreeRedshift:
    """The uniform prior of a redshift that is not known."""

    low: float
    high: float
    default: bool
    """Whether the configuration left it open."""


@dataclass(frozen=True)
class Sampling:
    """How posteriors are sampled."""

    method: Method
    """With a flow, for the galaxies that the flow does not serve."""
    fallback: tuple[Method, ...]
    slots: int
    """Galaxies advanced together."""
    chunk: int
    """Galaxies given to the engine at a time."""
    flow: str | Path | None
    """A file, or "shipped" for one of the package's own; None to go without."""


@dataclass(frozen=True)
class Plan:
    """A catalogue fit."""

    reader: Reader
    model: ModelChoice
    redshift: FreeRedshift | None
    """None where the table has it."""
    prior: Mapping[str, Any]
    """Distributions: what replaces the model's own prior, by parameter."""
    error_floor: float
    """Of the observed flux."""
    emulator_covariance: bool
    """Whether the emulator's errors are correlated between bands."""
    sampling: Sampling
    draws: int
    """Stored for each galaxy."""
    text: str
    """What the configuration's file said."""
    checksum: str
    """Of all its settings."""

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The curve of each band."""
        return tuple(column.filter for column in self.reader.columns)


def resolve(config: Config) -> Plan:
    """What a configuration asks for.

    Raises JaxsedError for a filter or a file that is not there or cannot be read, and for a prior
    that the model cannot have.
    """
    catalog, model = config.catalog, config.model
    galaxies = family(model.physics)
    redshift = None
    if catalog.redshift == "free":
        low, high = catalog.redshift_prior or FREE_REDSHIFT
        redshift = FreeRedshift(low, high, default=catalog.redshift_prior is None)
    return Plan(
        reader=_reader(config),
        model=ModelChoice(
            galaxies=galaxies,
            grid=config.find_file(model.grid) or model.grid,
            cosmology=COSMOLOGIES[model.cosmology],
            cosmology_name=model.cosmology,
            igm=model.igm,
            birth_cloud_age=model.birth_cloud_age,
            predictor=model.predictor,
            emulator=None if model.emulator is None else config.find_file(model.emulator),
            error_floor=config.likelihood.error_floor,
        ),
        redshift=redshift,
        prior=_prior(config, galaxies),
        error_floor=config.likelihood.error_floor,
        emulator_covariance=config.likelihood.emulator_covariance,
        sampling=_sampling(config),
        draws=config.output.draws,
        text=config.text,
        checksum=config.checksum(),
    )


def _reader(config: Config) -> Reader:
    return Reader(
        options=config.catalog,
        columns=tuple(
            Column(
                name=band.name,
                flux=band.flux,
                error=band.error,
                unit=band.unit or config.catalog.flux_unit,
                filter=curve,
            )
            for band, curve in zip(config.bands, load_filters(config), strict=True)
        ),
        negative_error_is_limit=config.likelihood.upper_limits == "negative_error",
    )


def load_filters(config: Config) -> tuple[Filter, ...]:
    """The curve of each band.  Raises JaxsedError naming the band that has none."""
    filters = []
    for band in config.bands:
        try:
            filters.append(load_filter(config.filter_source(band), wave_unit=band.wave_unit))
        except JaxsedError:
            raise
        except (ValueError, OSError) as error:
            raise JaxsedError(f"band {band.name!r}: {error}") from None
    return tuple(filters)


def _prior(config: Config, galaxies: GalaxyFamily) -> dict[str, Any]:
    own = galaxies.prior(0.5)
    changed = {}
    for name, entry in config.prior.items():
        if name not in own._fields or name == "redshift":
            known = [field for field in own._fields if field != "redshift"]
            raise JaxsedError(
                f"[prior]: {galaxies.name} has no parameter {name!r}; it has {', '.join(known)}."
            )
        if params.widths(own)[own._fields.index(name)] != 1:
            raise JaxsedError(f"[prior]: {name} is a vector, whose prior cannot be replaced.")
        try:
            changed[name] = params.distribution(entry.distribution, *entry.args)
        except ValueError as error:
            raise JaxsedError(f"[prior]: {name}: {error}.") from None
    return changed


def _sampling(config: Config) -> Sampling:
    sampler = config.sampler
    flow: str | Path | None = None
    if sampler.method == AUTO:
        flow = SHIPPED if sampler.flow == SHIPPED else config.find_file(sampler.flow)
        if flow is None:
            raise JaxsedError(f"[sampler] flow = {sampler.flow!r}: no such file.")
    options = _options(sampler)
    return Sampling(
        method=infer.method_of("hmc" if sampler.method == AUTO else sampler.method, **options),
        fallback=tuple(infer.method_of(name, **options) for name in sampler.fallback),
        slots=sampler.slots,
        chunk=sampler.chunk,
        flow=flow,
    )


def _options(sampler: SamplerConfig) -> dict[str, Any]:
    """Options of methods as they are configured."""
    options: dict[str, Any] = {
        name: getattr(sampler, name)
        for name in ("chains", "warmup", "draws", "retries", "max_tree_depth")
    }
    if sampler.target_accept is not None:
        options["target_acceptance"] = sampler.target_accept
    return options
