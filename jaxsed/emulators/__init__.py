"""Emulators: a network, its scaling and its measured error, in place of the physics.

`PhotometricEmulator` is called like the physics, `emulator(theta) -> flux [band]`, and may stand
in for it anywhere. `train_photometric` makes one from simulated pairs, `measure_error` says how
wrong it is, and `error_report`, `error_table` and `model_card` say it to a reader.

`SpectrumEmulator` gives rest-frame spectra, `emulator(theta) -> ln L_lambda [wave]`;
`read_speculator` makes one from published networks.
"""

from jaxsed.emulators.errors import ErrorSummary, measure_error
from jaxsed.emulators.photometric import EmulatorRecord, FilterCurve, PhotometricEmulator
from jaxsed.emulators.report import error_report, error_table, model_card
from jaxsed.emulators.shelf import cache_folder, emulator_files, load_emulator
from jaxsed.emulators.spectral import Resolution, SpectrumEmulator
from jaxsed.emulators.speculator import read_speculator
from jaxsed.emulators.train import EmulatorTarget, TrainSettings, train_photometric
from jaxsed.emulators.widths import choose_width

__all__ = [
    "EmulatorRecord",
    "EmulatorTarget",
    "ErrorSummary",
    "FilterCurve",
    "PhotometricEmulator",
    "Resolution",
    "SpectrumEmulator",
    "TrainSettings",
    "cache_folder",
    "choose_width",
    "emulator_files",
    "error_report",
    "error_table",
    "load_emulator",
    "measure_error",
    "model_card",
    "read_speculator",
    "train_photometric",
]
