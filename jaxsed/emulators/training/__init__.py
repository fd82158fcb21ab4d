"""Training of emulators on simulated pairs."""
