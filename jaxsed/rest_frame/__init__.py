"""What rest-frame spectra of the physics and of emulators share: wavelengths and dust curves."""
