"""Filters, fluxes through them, magnitudes and wavelengths."""
