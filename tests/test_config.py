"""The TOML configuration: what is read, and that nothing wrong or contradictory is let through."""

import dataclasses
import json
import subprocess
import sys

import pytest

from jaxsed.catalog.config.sections import (
    BandConfig,
    PriorConfig,
    SamplerConfig,
    config_schema,
    load_config,
    parse_config,
)
from jaxsed.core.errors import JaxsedError
from jaxsed.infer.methods import METHODS
from jaxsed.sps.models.registry import FAMILIES

BAND = '[[band]]\nflux = "g"\nerror = "eg"\nfilter = "sdss_g0"\n'
CATALOG = '[catalog]\nid = "ID"\nredshift = "z"\nflux_unit = "ABmag"\n'
BASE = CATALOG + BAND


def test_defaults():
    config = parse_config(BASE)
    assert config.catalog.id == "ID"
    assert config.catalog.redshift == "z"
    assert config.bands == (BandConfig(flux="g", error="eg", filter="sdss_g0", name="g"),)
    assert config.band_names == ("g",)
    assert (config.model.physics, config.model.predictor) == ("provabgs", "auto")
    assert (config.model.grid, config.model.birth_cloud_age) == ("pegase2", None)
    assert config.likelihood.error_floor == 0.05
    assert config.sampler.method == "hmc"
    assert config.sampler.fallback == ("nuts", "nested")
    assert config.output.draws == 1000
    assert config.prior == {}


def test_a_key_may_go_by_its_old_name():
    assert parse_config(BASE + "[sampler]\nlanes = 8\n").sampler.slots == 8
    assert parse_config(BASE + "[sampler]\nslots = 8\n").sampler.slots == 8


@pytest.mark.parametrize(
    ("setting", "expected"), [("0.5", 0.5), ("1", 1.0), ('"free"', "free"), ('"zz"', "zz")]
)
def test_redshift_is_a_column_a_number_or_free(setting, expected):
    config = parse_config(BASE.replace('"z"', setting))
    assert config.catalog.redshift == expected


def test_sections_are_read():
    config = parse_config(
        CATALOG.replace('"z"', '"free"')
        + "redshift_prior = [0.1, 3]\n"
        + BAND
        + 'name = "Gunn g"\nunit = "uJy"\nwave_unit = "um"\n'
        + '[model]\nphysics = "continuity"\nbirth_cloud_age = "fsps"\nigm = "madau1995"\n'
        + '[prior]\ndust2 = {distribution = "uniform", low = 0, high = 2}\n'
        + '[likelihood]\nerror_floor = 0\nupper_limits = "negative_error"\n'
        + "[sampler]\nchains = 2\nbatch = 8\n[output]\ndraws = 10\n"
    )
    assert config.catalog.redshift_prior == (0.1, 3.0)
    assert config.bands[0].name == "Gunn g"
    assert (config.bands[0].unit, config.bands[0].wave_unit) == ("uJy", "um")
    assert config.model.birth_cloud_age == 0.01
    assert config.prior == {"dust2": PriorConfig(distribution="uniform", args=(0.0, 2.0))}
    assert config.sampler.chains == 2


# (text, words of the message)
WRONG = {
    "two names": (BASE + "[sampler]\nlanes = 8\nslots = 4\n", ["old name of 'slots'"]),
    "not toml": ("[catalog\n", ["not valid TOML", "line 1"]),
    "no catalog": (BAND, ["[catalog]", "missing"]),
    "no band": (CATALOG, ["no bands", "[[band]]"]),
    "single brackets": (CATALOG + BAND.replace("[[band]]", "[band]"), ["no bands", "double"]),
    "unknown section": (BASE + "[samplr]\n", ["unknown section [samplr]", "'sampler'"]),
    "unknown key": (BASE + "[sampler]\nwarm_up = 5\n", ["unknown key 'warm_up'", "'warmup'"]),
    "unknown band key": (BASE + 'fliter = "x"\n', ["[[band]] 1", "'fliter'", "'filter'"]),
    "required key": (BASE.replace('flux_unit = "ABmag"\n', ""), ["'flux_unit' is required"]),
    "unit": (
        BASE.replace("ABmag", "abmags"),
        ["flux_unit", "one of ABmag", "'ABmag'?", "'abmags'"],
    ),
    "physics": (BASE + '[model]\nphysics = "provabs"\n', ["physics", "'provabgs'?"]),
    "method": (BASE + '[sampler]\nmethod = "NUTS!"\n', ["method", "'nuts'?"]),
    "fallback": (BASE + '[sampler]\nfallback = "nuts"\n', ["fallback", "a list of"]),
    "fallback method": (BASE + '[sampler]\nfallback = ["gibs"]\n', ["fallback", "expected one"]),
    "number for text": (BASE.replace('"eg"', "3"), ["error", "text in quotes", "got 3"]),
    "text for number": (BASE + '[likelihood]\nerror_floor = "5%"\n', ["error_floor", "number"]),
    "negative floor": (BASE + "[likelihood]\nerror_floor = -0.1\n", ["[0, 1]", "-0.1"]),
    "floor in percent": (BASE + "[likelihood]\nerror_floor = 5\n", ["[0, 1]", "got 5"]),
    "one chain": (BASE + "[sampler]\nchains = 1\n", ["chains", "from 2 to 64"]),
    "fraction of draws": (BASE + "[sampler]\ndraws = 100.5\n", ["draws", "whole number"]),
    "redshift number": (BASE.replace('"z"', "-1.0"), ["redshift", "(0, 12]", "free"]),
    "redshift true": (BASE.replace('"z"', "true"), ["redshift", "column name"]),
    "prior reversed": (
        BASE.replace('"z"', '"free"\nredshift_prior = [2, 1]'),
        ["redshift_prior", "low < high"],
    ),
    "prior without free": (
        BASE.replace('"z"', '"z"\nredshift_prior = [0, 1]'),
        ["redshift_prior", '"free"'],
    ),
    "prior distribution": (
        BASE + '[prior]\ndust2 = {distribution = "unifrom", low = 0, high = 1}\n',
        ["dust2", "'unifrom'", "'uniform'?"],
    ),
    "prior arguments": (
        BASE + '[prior]\ndust2 = {distribution = "normal", low = 0, high = 1}\n',
        ["dust2", "normal takes mean, sigma", "low, high"],
    ),
    "prior bounds": (
        BASE + '[prior]\ndust2 = {distribution = "uniform", low = 1, high = 0}\n',
        ["dust2", "low < high"],
    ),
    "prior shape": (BASE + "[prior]\ndust2 = 3\n", ["dust2", "distribution ="]),
    "same column twice": (BASE + BAND + 'name = "h"\n', ["same flux 'g'"]),
    "same name twice": (
        BASE + BAND.replace('"g"', '"h"') + 'name = "g"\n',
        ["same name 'g'"],
    ),
    "id is a column of the table": (BASE.replace('"ID"', '"flag"'), ["'flag'", "summary table"]),
    "limits against sentinel": (
        BASE.replace(BAND, "missing_error_below = 0.0\n" + BAND)
        + '[likelihood]\nupper_limits = "negative_error"\n',
        ["missing_error_below = 0", "upper_limits"],
    ),
    "emulator with physics": (
        BASE + '[model]\npredictor = "physics"\nemulator = "a.h5"\n',
        ["emulator is given"],
    ),
    "emulator not there": (BASE + '[model]\nemulator = "a.h5"\n', ["no file 'a.h5'"]),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_wrong_configurations_say_what_is_wrong(text, words):
    with pytest.raises(JaxsedError) as error:
        parse_config(text, source="my.toml")
    message = str(error.value)
    for word in ["my.toml", *words]:
        assert word in message


def test_the_schema_takes_what_is_taken_and_lists_every_choice():
    schema = config_schema()
    assert json.loads(json.dumps(schema)) == schema
    sections = schema["properties"]
    assert set(sections["sampler"]["properties"]) == {
        f.name for f in dataclasses.fields(SamplerConfig)
    }
    assert sections["sampler"]["properties"]["method"]["enum"] == ["auto", *METHODS]
    assert sections["model"]["properties"]["physics"]["enum"] == list(FAMILIES)
    assert sections["catalog"]["required"] == ["redshift", "flux_unit"]
    assert sections["sampler"]["properties"]["chains"] | {"minimum": 2, "maximum": 64} == (
        sections["sampler"]["properties"]["chains"]
    )
    for part in (*(sections[k] for k in ("catalog", "model", "sampler")), schema):
        assert part["additionalProperties"] is False


def test_file_not_there(tmp_path):
    with pytest.raises(JaxsedError, match="cannot read the configuration .*nothing.toml"):
        load_config(tmp_path / "nothing.toml")


def test_checksum_follows_settings_and_not_layout():
    config = parse_config(BASE)
    assert parse_config("# hello\n" + BASE.replace(" = ", "=")).checksum() == config.checksum()
    assert parse_config(BASE + "[sampler]\ndraws = 501\n").checksum() != config.checksum()


def test_filter_paths_are_looked_for_beside_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    curve = tmp_path / "a" / "mine.dat"
    curve.write_text("1 0\n")
    (tmp_path / "a" / "c.toml").write_text(BASE.replace("sdss_g0", "mine.dat"))
    config = load_config(tmp_path / "a" / "c.toml")
    assert config.filter_source(config.bands[0]) == str(curve)

    # then in the working folder
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.toml").write_text(BASE.replace("sdss_g0", "mine.dat"))
    config = load_config(tmp_path / "b" / "c.toml")
    with pytest.raises(JaxsedError, match="band 'g': no filter file 'mine.dat'"):
        config.filter_source(config.bands[0])
    monkeypatch.chdir(tmp_path / "a")
    assert config.filter_source(config.bands[0]) == str(curve)

    # names, with a slash or without, are handed on
    for name in ("sdss_g0", "JWST/NIRCam.F200W"):
        config = parse_config(BASE.replace("sdss_g0", name))
        assert config.filter_source(config.bands[0]) == name


def test_goodss_configuration_is_accepted_as_it_stands(shared_data, tmp_path):
    script = shared_data.parent / "tools" / "goodss_config.py"
    if not script.is_file():
        pytest.skip(f"no {script}")
    folder = shared_data / "filters" / "goodss"
    subprocess.run([sys.executable, script, folder, tmp_path / "c.toml"], check=True)
    config = load_config(tmp_path / "c.toml")
    assert len(config.bands) == 17
    assert config.catalog.missing_flux_above == 90.0
    assert all(config.filter_source(band).endswith(".dat") for band in config.bands)
