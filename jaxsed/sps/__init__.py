"""The physics of galaxy spectra: stellar populations, dust, the intergalactic medium, filters."""
