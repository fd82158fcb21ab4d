"""Sampling methods, one file each."""
