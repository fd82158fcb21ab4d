"""The TOML configuration of a catalogue fit, checked key by key before anything runs.

A configuration has the sections ``[catalog]``, one ``[[band]]`` per band, ``[model]``,
``[prior]``, ``[likelihood]``, ``[sampler]`` and ``[output]``.  Each is a frozen dataclass here,
whose fields are the keys, checked by pydantic.  A key that is not a field is an error, never
ignored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from jaxsed.bands.filters import WAVE_UNITS
from jaxsed.catalog.config.types import (
    Fraction,
    Number,
    OneOf,
    Text,
    expectation,
    interval_in,
    is_number,
    redshift_up_to,
    schema_of,
)
from jaxsed.catalog.units import flux_unit
from jaxsed.core.diagnostics import Diagnostics, Goodness, described
from jaxsed.core.errors import JaxsedError, nearest, user_errors
from jaxsed.core.types import Numbers
from jaxsed.cosmology import COSMOLOGIES
from jaxsed.infer.methods import METHODS
from jaxsed.io.text import parse_toml, read_text
from jaxsed.params import DISTRIBUTIONS
from jaxsed.sps.igm import MODELS as IGM
from jaxsed.sps.models.registry import FAMILIES

PREDICTORS = ("auto", "emulator", "physics")
AUTO = "auto"
UPPER_LIMITS = ("none", "negative_error")
CURVE_SUFFIXES = (".dat", ".txt", ".par", ".csv", ".ascii")
BIRTH_CLOUD_AGES = {"paper": 0.1, "fsps": 0.01}
MAX_REDSHIFT = 12.0
# columns of the summary table that an id column may not be named after
RESERVED = ("redshift", "flag", "flag_text", *described(Goodness), *described(Diagnostics))
RENAMED = {"lanes": "slots"}
"""Keys of [sampler] by their names of old."""

_RULES = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _flux_unit(value: Any) -> Any:
    flux_unit(value if isinstance(value, str) else repr(value))
    return value


def _birth_cloud_age(value: Any) -> Any:
    if isinstance(value, str):
        value = BIRTH_CLOUD_AGES.get(value, value)
    if value is None:
        return value
    if not is_number(value) or not 0.001 <= value <= 1.0:
        raise ValueError('expected "paper" (0.1), "fsps" (0.01) or an age in Gyr')
    return float(value)


FluxUnitText = Annotated[str, BeforeValidator(_flux_unit)]


@dataclass(frozen=True, kw_only=True, config=_RULES)
class CatalogConfig:
    """``[catalog]``: how to read the table.

    A value above `missing_flux_above` or below `missing_flux_below` (in the column's own unit), an
    error at or below `missing_error_below`, and NaN all mean "not observed".
    """

    # a column, a number, or "free"
    redshift: Annotated[str | float, redshift_up_to(MAX_REDSHIFT)]
    flux_unit: FluxUnitText
    id: Text | None = None  # without it, rows are numbered from 1
    missing_flux_above: Number | None = None
    missing_flux_below: Number | None = None
    missing_error_below: Number | None = None
    # uniform, for "free"
    redshift_prior: Annotated[tuple[float, float] | None, interval_in(0.0, MAX_REDSHIFT)] = None
    check_units: bool = True  # refuse values that look like another unit
    format: Text | None = None  # an astropy format name, where the suffix misleads
    table: Text | None = None  # which, in an HDF5 or FITS file of several


@dataclass(frozen=True, kw_only=True, config=_RULES)
class BandConfig:
    """One ``[[band]]``: two columns and a curve."""

    flux: Text
    error: Text
    filter: Text  # a known name, or a path to a two-column curve
    name: str = ""  # the flux column, where not given
    unit: FluxUnitText | None = None  # overrides flux_unit
    wave_unit: Annotated[str, OneOf(*WAVE_UNITS)] = "AA"  # of the curve's file


@dataclass(frozen=True, kw_only=True, config=_RULES)
class ModelConfig:
    """``[model]``: the physics and what evaluates it."""

    physics: Annotated[str, OneOf(*FAMILIES)] = "provabgs"
    predictor: Annotated[str, OneOf(*PREDICTORS)] = AUTO
    emulator: Text | None = None  # path to a trained emulator
    ssp: Text | None = None  # a shipped grid, or a path; default: that of the physics
    # Gyr; default: the physics' own
    birth_cloud_age: Annotated[float | None, BeforeValidator(_birth_cloud_age)] = None
    igm: Annotated[str, OneOf(*IGM)] = "inoue2014"
    cosmology: Annotated[str, OneOf(*COSMOLOGIES)] = "planck15"

    @property
    def grid(self) -> str:
        """The SSP grid that is used: a shipped one, or a path."""
        return self.ssp or FAMILIES[self.physics].ssp


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """One entry of ``[prior]``: replaces the model's own prior of one parameter."""

    distribution: str
    args: tuple[float, ...]  # in the order of params.DISTRIBUTIONS


@dataclass(frozen=True, kw_only=True, config=_RULES)
class LikelihoodConfig:
    """``[likelihood]``."""

    error_floor: Fraction = 0.05  # of the observed flux
    # "negative_error": a negative error marks an upper limit, flux +- |error|, as CIGALE has it
    upper_limits: Annotated[str, OneOf(*UPPER_LIMITS)] = "none"
    emulator_covariance: bool = False  # full covariance, not per-band errors


Method = Annotated[str, OneOf(*METHODS)]


@dataclass(frozen=True, kw_only=True, config=_RULES)
class SamplerConfig:
    """``[sampler]``."""

    method: Annotated[str, OneOf(AUTO, *METHODS)] = "hmc"
    flow: Text = "shipped"  # of "auto": the package's own, or a file
    fallback: Annotated[tuple[Method, ...], Field(strict=False)] = ("nuts", "nested")
    warmup: Annotated[int, Field(ge=100, le=1_000_000)] = 200
    draws: Annotated[int, Field(ge=100, le=1_000_000)] = 300  # per chain, in the first run
    chains: Annotated[int, Field(ge=2, le=64)] = 4
    max_tree_depth: Annotated[int, Field(ge=2, le=15)] = 6
    # default: that of the method, which is 0.8 but 0.9 of mclmc
    target_accept: Annotated[float | None, Field(ge=0.5, le=0.99)] = None
    batch: Annotated[int, Field(ge=0, le=1_000_000)] = 0  # galaxies per chunk; 0: see `chunk`
    # of them, how many are advanced together
    slots: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    retries: Annotated[int, Field(ge=0, le=10)] = 4  # longer runs of what did not converge

    @property
    def chunk(self) -> int:
        """Galaxies per chunk.  With a flow they are many, as few of them are left to sample."""
        return self.batch or (2048 if self.method == AUTO else 512)


@dataclass(frozen=True, kw_only=True, config=_RULES)
class OutputConfig:
    """``[output]``: `draws` per galaxy are stored; summaries use all."""

    draws: Annotated[int, Field(ge=1, le=1_000_000)] = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A checked configuration.  `text` is what the file said; `folder` is where it lies."""

    catalog: CatalogConfig
    bands: tuple[BandConfig, ...]
    model: ModelConfig = ModelConfig()
    prior: Mapping[str, PriorConfig] = dataclasses.field(default_factory=dict)
    likelihood: LikelihoodConfig = LikelihoodConfig()
    sampler: SamplerConfig = SamplerConfig()
    output: OutputConfig = OutputConfig()
    text: str = ""
    folder: Path = Path()

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)

    def checksum(self) -> str:
        """sha256 of every setting; comments, order and layout of the file do not enter."""
        settings = dataclasses.asdict(self)
        del settings["text"], settings["folder"]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def find_file(self, name: str) -> Path | None:
        """The file `name`, looked for beside the configuration, then in the working folder."""
        for candidate in (self.folder / name, Path(name)):
            if candidate.is_file():
                return candidate.resolve()
        return None

    def filter_source(self, band: BandConfig) -> str:
        """What to hand to the filter reader: an absolute path, or a filter's name.

        Raises JaxsedError for what can only be a path and is not there.
        """
        found = self.find_file(band.filter)
        if found is not None:
            return str(found)
        path = Path(band.filter)
        if path.is_absolute() or path.suffix.lower() in CURVE_SUFFIXES:
            raise JaxsedError(
                f"band {band.name!r}: no filter file {band.filter!r}, neither beside the "
                f"configuration ({self.folder.resolve()}) nor in {Path.cwd()}."
            )
        return band.filter


# ------------------------------------------------------------------ reading

Section = TypeVar("Section")


def _section(cls: type[Section], where: str, raw: Numbers) -> Section:
    if not isinstance(raw, dict):
        raise JaxsedError(f"{where}: expected a section of key = value lines, got {raw!r}.")
    if cls is SamplerConfig:
        for old, new in RENAMED.items():
            if old in raw and new in raw:
                raise JaxsedError(f"{where}: {old!r} is the old name of {new!r}: give one of them.")
        raw = {RENAMED.get(name, name): value for name, value in raw.items()}
    fields = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in raw:
        if name not in fields:
            raise JaxsedError(
                f"{where}: unknown key {name!r}.{nearest(name, fields, 1)} "
                f"Known keys: {', '.join(fields)}."
            )
    try:
        return cls(**raw)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise JaxsedError(f"{where}: the key {name!r} is required and not there.") from None
        words = expectation(cls, first)
        raise JaxsedError(f"{where}: {name}: got {raw[name]!r}; {words}") from None


def _prior(where: str, raw: Numbers) -> dict[str, PriorConfig]:
    if not isinstance(raw, dict):
        raise JaxsedError(f"{where}: expected a section of parameters, got {raw!r}.")
    priors = {}
    for name, entry in raw.items():
        place = f"{where}: {name}"
        shape = 'expected {distribution = "uniform", low = ..., high = ...}'
        if not isinstance(entry, dict) or "distribution" not in entry:
            raise JaxsedError(f"{place}: {shape}; got {entry!r}.")
        kind = entry["distribution"]
        if kind not in DISTRIBUTIONS:
            hint = nearest(str(kind), tuple(DISTRIBUTIONS), 1)
            raise JaxsedError(
                f"{place}: unknown distribution {kind!r}.{hint} Known: {', '.join(DISTRIBUTIONS)}."
            )
        wanted, _ = DISTRIBUTIONS[kind]
        if set(entry) != {"distribution", *wanted}:
            raise JaxsedError(
                f"{place}: {kind} takes {', '.join(wanted)}; got "
                f"{', '.join(k for k in entry if k != 'distribution') or 'none'}."
            )
        args = {k: entry[k] for k in wanted}
        if not all(is_number(value) for value in args.values()):
            raise JaxsedError(f"{place}: expected a number; got {entry!r}.")
        if (
            args.get("low", 0.0) >= args.get("high", math.inf)
            or args.get("sigma", 1.0) <= 0
            or (kind == "log_uniform" and args["low"] <= 0)
        ):
            raise JaxsedError(f"{place}: need low < high and sigma > 0 (log_uniform: low > 0).")
        priors[name] = PriorConfig(distribution=kind, args=tuple(map(float, args.values())))
    return priors


def _check_together(config: Config, source: str) -> None:
    """Settings that are each fine and contradict one another."""
    catalog, model = config.catalog, config.model
    for attribute in ("name", "flux"):
        seen: set[str] = set()
        for band in config.bands:
            value = getattr(band, attribute)
            if value in seen:
                raise JaxsedError(f"{source}: two bands have the same {attribute} {value!r}.")
            seen.add(value)
    if catalog.id in RESERVED or (catalog.id or "").endswith(("_p16", "_p50", "_p84")):
        raise JaxsedError(
            f"{source}: [catalog] id: a column {catalog.id!r} is in the summary table already; "
            "rename the id column, or leave id out to number the rows."
        )
    if catalog.redshift_prior is not None and catalog.redshift != "free":
        raise JaxsedError(f'{source}: redshift_prior acts only with redshift = "free".')
    limit = catalog.missing_error_below
    if config.likelihood.upper_limits == "negative_error" and limit is not None and limit >= 0:
        raise JaxsedError(
            f"{source}: missing_error_below = {limit:g} makes every negative error missing, while "
            'upper_limits = "negative_error" reads them as limits. Set missing_error_below to the '
            "sentinel itself, such as -90."
        )
    if model.emulator is not None and model.predictor == "physics":
        raise JaxsedError(f'{source}: [model] emulator is given, but predictor = "physics".')
    if model.emulator is not None and config.find_file(model.emulator) is None:
        raise JaxsedError(f"{source}: [model] emulator: no file {model.emulator!r}.")
    if config.likelihood.emulator_covariance and model.predictor == "physics":
        raise JaxsedError(f'{source}: emulator_covariance does not go with predictor = "physics".')


def parse_config(text: str, *, source: str = "configuration", folder: Path = Path()) -> Config:
    """Check a configuration in TOML.

    Raises JaxsedError naming the file, the section, the key, what was expected and what was got.
    """
    with user_errors():
        raw = parse_toml(text, source)
    known = ("catalog", "band", "model", "prior", "likelihood", "sampler", "output")
    for key in raw:
        if key not in known:
            raise JaxsedError(
                f"{source}: unknown section [{key}].{nearest(key, known, 1)} "
                f"Known sections: {', '.join(known)}."
            )
    if "catalog" not in raw:
        raise JaxsedError(f"{source}: the section [catalog] is missing.")
    bands = raw.get("band", [])
    if not isinstance(bands, list) or not bands:
        raise JaxsedError(
            f"{source}: no bands. Each needs a section [[band]] (double brackets) with flux, error "
            "and filter."
        )
    parsed = [_section(BandConfig, f"{source}: [[band]] {i + 1}", b) for i, b in enumerate(bands)]
    config = Config(
        catalog=_section(CatalogConfig, f"{source}: [catalog]", raw["catalog"]),
        bands=tuple(b if b.name else dataclasses.replace(b, name=b.flux) for b in parsed),
        model=_section(ModelConfig, f"{source}: [model]", raw.get("model", {})),
        prior=_prior(f"{source}: [prior]", raw.get("prior", {})),
        likelihood=_section(LikelihoodConfig, f"{source}: [likelihood]", raw.get("likelihood", {})),
        sampler=_section(SamplerConfig, f"{source}: [sampler]", raw.get("sampler", {})),
        output=_section(OutputConfig, f"{source}: [output]", raw.get("output", {})),
        text=text,
        folder=folder,
    )
    _check_together(config, source)
    return config


def load_config(path: str | Path) -> Config:
    """Read and check a configuration file; see `parse_config`."""
    path = Path(path)
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise JaxsedError(f"cannot read the configuration {str(path)!r}: {reason}.") from None
    return parse_config(text, source=str(path), folder=path.resolve().parent)


def config_schema() -> dict[str, Any]:
    """The JSON schema of a configuration (draft 2020-12), for editors that complete TOML."""
    sections = {
        "catalog": CatalogConfig, "model": ModelConfig, "likelihood": LikelihoodConfig,
        "sampler": SamplerConfig, "output": OutputConfig,
    }  # fmt: skip
    priors = [
        {
            "type": "object",
            "properties": {"distribution": {"const": name}} | {k: {"type": "number"} for k in args},
            "required": ["distribution", *args],
            "additionalProperties": False,
        }
        for name, (args, _) in DISTRIBUTIONS.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "jaxsed fit",
        "type": "object",
        "properties": {name: schema_of(cls) for name, cls in sections.items()}
        | {
            "band": {"type": "array", "minItems": 1, "items": schema_of(BandConfig)},
            "prior": {"type": "object", "additionalProperties": {"oneOf": priors}},
        },
        "required": ["catalog", "band"],
        "additionalProperties": False,
    }
