"""Errors of emulators, measured and reported."""
