"""Dust: attenuation, emission, and the Milky Way in front."""
