"""Ionised gas: its continuum and its lines."""
