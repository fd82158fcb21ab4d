"""Amortised posteriors: simulations, features, the flow's training, and the weights that make its
draws exact."""

from jaxsed.infer.amortised.posterior import Amortised, Record, load, simulate, train

__all__ = ["Amortised", "Record", "load", "simulate", "train"]
