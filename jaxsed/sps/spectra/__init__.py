"""Spectra of galaxies: at rest, through an instrument, and as surveys publish them."""
