"""Emulators of fluxes in bands."""
