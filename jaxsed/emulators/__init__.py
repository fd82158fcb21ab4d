"""Emulators: a network, its scaling and its measured error, in place of the physics.

`PhotometricEmulator` is called like the physics, `emulator(theta) -> flux [band]`, and may stand
in for it anywhere. `train_photometric` makes one from simulated pairs, `measure_error` says how
wrong it is, and `error_report`, `error_table` and `model_card` say it to a reader. `choose_width`
says which network is enough; a `StitchedEmulator` covers more redshift than one network can.

`SpectrumEmulator` gives rest-frame spectra, `emulator(theta) -> ln L_lambda [wave]`;
`read_speculator` makes one from published networks, `train_spectrum` from simulated pairs.
`load_spectrum_emulator` gives the shipped `ProvabgsSpectrum` of whole galaxies; how wrong a
spectrum model is, `spectral_errors` says.
"""

from jaxsed.emulators.photometric.emulator import PhotometricEmulator
from jaxsed.emulators.photometric.stitched import StitchedEmulator
from jaxsed.emulators.record import EmulatorRecord
from jaxsed.emulators.registry import (
    cache_folder,
    emulator_files,
    is_photometric,
    load_emulator,
    load_spectrum_emulator,
)
from jaxsed.emulators.spectral.emulator import SpectrumEmulator
from jaxsed.emulators.spectral.provabgs import ProvabgsSpectrum
from jaxsed.emulators.spectral.speculator import read_speculator
from jaxsed.emulators.training.photometric import EmulatorTarget, TrainSettings, train_photometric
from jaxsed.emulators.training.spectral import SpectrumSettings, SpectrumTarget, train_spectrum
from jaxsed.emulators.training.stitched import train_stitched
from jaxsed.emulators.training.widths import choose_width
from jaxsed.emulators.validation.errors import ErrorSummary, measure_error, measured_sigma
from jaxsed.emulators.validation.report import error_report, error_table, model_card
from jaxsed.emulators.validation.spectral import SpectrumErrors, spectral_errors
from jaxsed.rest_frame.spectrum import Resolution

__all__ = [
    "EmulatorRecord",
    "EmulatorTarget",
    "ErrorSummary",
    "PhotometricEmulator",
    "ProvabgsSpectrum",
    "Resolution",
    "SpectrumEmulator",
    "SpectrumErrors",
    "SpectrumSettings",
    "SpectrumTarget",
    "StitchedEmulator",
    "TrainSettings",
    "cache_folder",
    "choose_width",
    "emulator_files",
    "error_report",
    "error_table",
    "is_photometric",
    "load_emulator",
    "load_spectrum_emulator",
    "measure_error",
    "measured_sigma",
    "model_card",
    "read_speculator",
    "spectral_errors",
    "train_photometric",
    "train_spectrum",
    "train_stitched",
]
