"""Emulators of rest-frame spectra."""
