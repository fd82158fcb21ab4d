"""Simple stellar populations: grids and their files."""
