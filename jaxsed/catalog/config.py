"""The TOML configuration of a catalogue fit, checked key by key before anything runs.

A configuration has the sections ``[catalog]``, one ``[[band]]`` per band, ``[model]``,
``[prior]``, ``[likelihood]``, ``[sampler]`` and ``[output]``.  Each is a frozen dataclass here,
whose fields are the keys.  A key that is not a field is an error, never ignored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jaxsed.core.errors import JaxsedError, nearest, user_errors
from jaxsed.io.text import parse_toml, read_text
from jaxsed.sps.models.registry import FAMILIES

FLUX_UNITS = ("ABmag", "maggies", "nanomaggies", "uJy", "mJy", "Jy")
WAVE_UNITS = ("AA", "nm", "um")
PHYSICS = tuple(FAMILIES)
PREDICTORS = ("auto", "emulator", "physics")
IGM = ("inoue2014", "madau1995")
COSMOLOGIES = ("planck15", "planck13", "wmap9")
METHODS = ("hmc", "nuts", "mclmc", "chees", "numpyro", "ensemble_slice", "aies", "nested")
UPPER_LIMITS = ("none", "negative_error")
CURVE_SUFFIXES = (".dat", ".txt", ".par", ".csv", ".ascii")
BIRTH_CLOUD_AGES = {"paper": 0.1, "fsps": 0.01}
MAX_REDSHIFT = 12.0
# distribution -> the numbers it takes, in order
DISTRIBUTIONS = {
    "uniform": ("low", "high"),
    "log_uniform": ("low", "high"),
    "normal": ("mean", "sigma"),
    "truncated_normal": ("mean", "sigma", "low", "high"),
    "student_t": ("df", "mean", "sigma"),
}
# columns of the summary table that an id column may not be named after
RESERVED = (
    "redshift", "chi2", "n_bands", "n_detected", "divergences", "method", "flag", "flag_text",
)  # fmt: skip

# ------------------------------------------------------------------ checks of one value
# Each takes what TOML gave and returns what is stored, or raises ValueError("expected ...").


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected text in quotes")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError("expected a number")
    return float(value)


def _between(low: float, high: float, *, open_low: bool = False) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        number = _number(value)
        if not low <= number <= high or (open_low and number == low):
            raise ValueError(f"expected a number in {'(' if open_low else '['}{low:g}, {high:g}]")
        return number

    return check


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return check


def _one_of(*options: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in options:
            hint = nearest(value, options, 1) if isinstance(value, str) else ""
            raise ValueError(f"expected one of {', '.join(options)}.{hint}")
        return value

    return check


def _names_of(*options: str) -> Callable[[Any], tuple[str, ...]]:
    one = _one_of(*options)

    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError(f"expected a list of {', '.join(options)}")
        return tuple(one(name) for name in value)

    return check


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _redshift(value: Any) -> str | float:
    if isinstance(value, str):
        return _text(value)
    try:
        return _between(0.0, MAX_REDSHIFT, open_low=True)(value)
    except ValueError as error:
        raise ValueError(f'{error}, a column name or "free"') from None


def _interval(value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("expected [low, high]")
    low, high = (_between(0.0, MAX_REDSHIFT)(v) for v in value)
    if not low < high:
        raise ValueError("expected [low, high] with low < high")
    return low, high


def _birth_cloud_age(value: Any) -> float:
    if isinstance(value, str) and value in BIRTH_CLOUD_AGES:
        return BIRTH_CLOUD_AGES[value]
    try:
        return _between(0.001, 1.0)(value)
    except ValueError:
        raise ValueError('expected "paper" (0.1), "fsps" (0.01) or an age in Gyr') from None


def _key(check: Callable[[Any], Any], default: Any = MISSING, *, formerly: str = "") -> Any:
    """A configuration key: a dataclass field that carries its check, and its name of old."""
    metadata = {"check": check, "formerly": formerly}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


# ------------------------------------------------------------------ sections


@dataclass(frozen=True, kw_only=True)
class CatalogConfig:
    """``[catalog]``: how to read the table.

    A value above `missing_flux_above` or below `missing_flux_below` (in the column's own unit), an
    error at or below `missing_error_below`, and NaN all mean "not observed".
    """

    redshift: str | float = _key(_redshift)  # a column, a number, or "free"
    flux_unit: str = _key(_one_of(*FLUX_UNITS))
    id: str | None = _key(_text, None)  # without it, rows are numbered from 1
    missing_flux_above: float | None = _key(_number, None)
    missing_flux_below: float | None = _key(_number, None)
    missing_error_below: float | None = _key(_number, None)
    redshift_prior: tuple[float, float] | None = _key(_interval, None)  # uniform, for "free"
    check_units: bool = _key(_boolean, True)  # refuse values that look like another unit
    format: str | None = _key(_text, None)  # an astropy format name, where the suffix misleads
    table: str | None = _key(_text, None)  # which, in an HDF5 or FITS file of several


@dataclass(frozen=True, kw_only=True)
class BandConfig:
    """One ``[[band]]``: two columns and a curve."""

    flux: str = _key(_text)
    error: str = _key(_text)
    filter: str = _key(_text)  # a known name, or a path to a two-column curve
    name: str = _key(_text, "")  # the flux column, where not given
    unit: str | None = _key(_one_of(*FLUX_UNITS), None)  # overrides flux_unit
    wave_unit: str = _key(_one_of(*WAVE_UNITS), "AA")  # of the curve's file


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """``[model]``: the physics and what evaluates it."""

    physics: str = _key(_one_of(*PHYSICS), "provabgs")
    predictor: str = _key(_one_of(*PREDICTORS), "auto")
    emulator: str | None = _key(_text, None)  # path to a trained emulator
    ssp: str | None = _key(_text, None)  # a shipped grid, or a path; default: that of the physics
    birth_cloud_age: float | None = _key(_birth_cloud_age, None)  # Gyr; default: the physics' own
    igm: str = _key(_one_of(*IGM), "inoue2014")
    cosmology: str = _key(_one_of(*COSMOLOGIES), "planck15")

    @property
    def grid(self) -> str:
        """The SSP grid that is used: a shipped one, or a path."""
        return self.ssp or FAMILIES[self.physics].ssp


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """One entry of ``[prior]``: replaces the model's own prior of one parameter."""

    distribution: str
    args: tuple[float, ...]  # in the order of DISTRIBUTIONS[distribution]


@dataclass(frozen=True, kw_only=True)
class LikelihoodConfig:
    """``[likelihood]``."""

    error_floor: float = _key(_between(0.0, 1.0), 0.05)  # fraction of the observed flux
    # "negative_error": a negative error marks an upper limit, flux +- |error|, as CIGALE has it
    upper_limits: str = _key(_one_of(*UPPER_LIMITS), "none")
    emulator_covariance: bool = _key(_boolean, False)  # full covariance, not per-band errors


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """``[sampler]``."""

    method: str = _key(_one_of("auto", *METHODS), "hmc")
    flow: str = _key(_text, "shipped")  # of "auto": the package's own, or a file
    fallback: tuple[str, ...] = _key(_names_of(*METHODS), ("nuts", "nested"))  # for what misses
    warmup: int = _key(_whole(100, 1_000_000), 200)
    draws: int = _key(_whole(100, 1_000_000), 300)  # per chain, in the first run
    chains: int = _key(_whole(2, 64), 4)
    max_tree_depth: int = _key(_whole(2, 15), 6)
    target_accept: float = _key(_between(0.5, 0.99), 0.8)
    batch: int = _key(_whole(0, 1_000_000), 0)  # galaxies per chunk; 0: see `chunk`
    # of them, how many are advanced together
    slots: int = _key(_whole(1, 1_000_000), 256, formerly="lanes")
    retries: int = _key(_whole(0, 10), 4)  # longer runs of what did not converge

    @property
    def chunk(self) -> int:
        """Galaxies per chunk.  With a flow they are many, as few of them are left to sample."""
        return self.batch or (2048 if self.method == "auto" else 512)


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """``[output]``: `draws` per galaxy are stored; summaries use all."""

    draws: int = _key(_whole(1, 1_000_000), 1000)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A checked configuration.  `text` is what the file said; `folder` is where it lies."""

    catalog: CatalogConfig
    bands: tuple[BandConfig, ...]
    model: ModelConfig = ModelConfig()
    prior: Mapping[str, PriorConfig] = field(default_factory=dict)
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


def _section(cls: type[Section], where: str, raw: Any) -> Section:
    if not isinstance(raw, dict):
        raise JaxsedError(f"{where}: expected a section of key = value lines, got {raw!r}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    renamed = {f.metadata["formerly"]: f.name for f in fields.values()}
    for given, value in raw.items():
        key = renamed.get(given, given)
        if key in values:
            raise JaxsedError(f"{where}: {given!r} is the old name of {key!r}: give one of them.")
        if key not in fields:
            raise JaxsedError(
                f"{where}: unknown key {key!r}.{nearest(key, list(fields), 1)} "
                f"Known keys: {', '.join(fields)}."
            )
        try:
            values[key] = fields[key].metadata["check"](value)
        except ValueError as error:
            raise JaxsedError(f"{where}: {key}: got {value!r}; {error}") from None
    for name, entry in fields.items():
        if name not in values and entry.default is MISSING:
            raise JaxsedError(f"{where}: the key {name!r} is required and not there.")
    return cls(**values)


def _prior(where: str, raw: Any) -> dict[str, PriorConfig]:
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
        wanted = DISTRIBUTIONS[kind]
        if set(entry) != {"distribution", *wanted}:
            raise JaxsedError(
                f"{place}: {kind} takes {', '.join(wanted)}; got "
                f"{', '.join(k for k in entry if k != 'distribution') or 'none'}."
            )
        try:
            args = {k: _number(entry[k]) for k in wanted}
        except ValueError as error:
            raise JaxsedError(f"{place}: {error}; got {entry!r}.") from None
        if (
            args.get("low", 0.0) >= args.get("high", math.inf)
            or args.get("sigma", 1.0) <= 0
            or (kind == "log_uniform" and args["low"] <= 0)
        ):
            raise JaxsedError(f"{place}: need low < high and sigma > 0 (log_uniform: low > 0).")
        priors[name] = PriorConfig(distribution=kind, args=tuple(args.values()))
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
