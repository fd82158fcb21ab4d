"""jaxsed: galaxy SED fitting in JAX.

The public names are looked up on first use, so that ``import jaxsed`` (and with it
``jaxsed --help`` and shell completion) does not wait for JAX.
"""

from importlib import import_module

__version__ = "0.1.0"

# public name -> the module that defines it
_PUBLIC = {
    "HMC": "jaxsed.infer",
    "NUTS": "jaxsed.infer",
    "EnsembleSlice": "jaxsed.infer",
    "FlowImportance": "jaxsed.infer",
    "NestedSlice": "jaxsed.infer",
    "PhotometricEmulator": "jaxsed.emulators",
    "Problem": "jaxsed.problem",
    "SpectrumEmulator": "jaxsed.emulators",
    "Posterior": "jaxsed.posterior",
    "fit_catalog": "jaxsed.catalog.run",
    "galaxy": "jaxsed.posterior",
    "galaxy_model": "jaxsed.sps.models.galaxy",
    "load": "jaxsed.catalog.load",
    "load_emulator": "jaxsed.emulators",
    "load_filter": "jaxsed.bands.filters",
    "load_results": "jaxsed.catalog.results",
    "load_spectrum_emulator": "jaxsed.emulators",
    "load_ssp": "jaxsed.sps.ssp.grid",
    "photometry": "jaxsed.likelihood",
    "read_desi_coadd": "jaxsed.sps.spectra.readers",
    "read_sdss_spectrum": "jaxsed.sps.spectra.readers",
    "read_speculator": "jaxsed.emulators",
    "sample": "jaxsed.posterior",
    "spectrum_problem": "jaxsed.workflows.spectra",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxsed' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
