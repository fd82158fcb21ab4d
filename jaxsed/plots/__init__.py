"""Pictures of results and emulators, each a matplotlib `Figure`.

``corner``, ``sed`` and ``sfh`` show one galaxy, ``spectrum_fit`` a fit of a spectrum, ``catalog`` a
run, ``compare`` two sets of values, ``emulator_errors`` an emulator, ``validation_figures`` and
``spectrum_figures`` what ``jaxsed validate`` found, ``rank_histograms`` and
``calibration_figures`` whether posteriors are calibrated, ``star_spectrum``, ``reading`` and
``label_residuals`` a star, what a network reads in it, and its labels; ``box_of_halos``,
``mass_functions``, ``stellar_masses`` and ``importances`` halos, and what networks and forests make
of them; ``stellar_halo_relation`` a posterior of what connects halos and galaxies; ``loss_curves``
trainings; ``save_all`` writes PNGs of a run.  The
figures are not known to pyplot, so nothing has to be closed and no backend is chosen: save one with
``save_figure`` or ``figure.savefig``; a notebook shows it after ``%matplotlib inline``.
"""

from jaxsed.plots.calibration import calibration_figures, rank_histograms
from jaxsed.plots.emulator import emulator_errors
from jaxsed.plots.galaxy import corner, sed, sfh
from jaxsed.plots.halos import (
    box_of_halos,
    importances,
    mass_functions,
    stellar_masses,
)
from jaxsed.plots.relation import stellar_halo_relation
from jaxsed.plots.run import catalog, compare, save_all
from jaxsed.plots.spectrum import spectrum_fit
from jaxsed.plots.stars import label_residuals, reading, star_spectrum
from jaxsed.plots.style import save_figure
from jaxsed.plots.training import loss_curves
from jaxsed.plots.validation import spectrum_figures, validation_figures

__all__ = [
    "box_of_halos",
    "calibration_figures",
    "catalog",
    "compare",
    "corner",
    "emulator_errors",
    "importances",
    "label_residuals",
    "loss_curves",
    "mass_functions",
    "rank_histograms",
    "reading",
    "save_all",
    "save_figure",
    "sed",
    "sfh",
    "spectrum_figures",
    "spectrum_fit",
    "star_spectrum",
    "stellar_halo_relation",
    "stellar_masses",
    "validation_figures",
]
