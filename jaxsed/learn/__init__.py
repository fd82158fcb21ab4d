"""The only training loop, `fit(key, model, loss, data) -> (model, History)`, and what trained
networks share: ensembles, batches, records, calibration, distance from the training set."""

from jaxsed.learn.loop import fit
from jaxsed.learn.settings import FitSettings, History, constant_adam

__all__ = ["FitSettings", "History", "constant_adam", "fit"]
