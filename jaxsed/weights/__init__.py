"""Trained and tabulated components, each with its model card and the script that made it."""
