"""Physical constants as Python floats, each with the astropy expression that gives it.

They are plain floats so that they take the dtype of the array they meet.  Products that would
overflow float32 (the square of 10 pc in cm is 1e39) are multiplied out here, once, in float64.
"""

import math

#: Speed of light [Angstrom / s]: ``astropy.constants.c.to_value("AA/s")``.
C_LIGHT = 2.99792458e18

#: Speed of light [km / s]: ``astropy.constants.c.to_value("km/s")``.
C_LIGHT_KM_S = 299792.458

#: Nominal solar luminosity [erg / s] (IAU 2015 B3): ``astropy.constants.L_sun.cgs.value``.
LSUN = 3.828e33

#: Parsec [cm]: ``astropy.constants.pc.cgs.value``.
PC = 3.0856775814913674e18

#: Planck constant [erg s]: ``astropy.constants.h.cgs.value``.
H_PLANCK = 6.62607015e-27

#: Boltzmann constant [erg / K]: ``astropy.constants.k_B.cgs.value``.
K_BOLTZMANN = 1.380649e-16

#: Boltzmann constant [eV / K]: ``astropy.constants.k_B.to_value("eV/K")``.
K_BOLTZMANN_EV = 8.617333262145179e-05

#: One maggie, the flux density of AB magnitude zero [erg / s / cm2 / Hz]:
#: ``(3631 * astropy.units.Jy).cgs.value`` (Oke & Gunn 1983).
MAGGIE = 3631e-23

#: Julian year [s]: ``astropy.units.yr.to("s")``.
YEAR = 31557600.0

#: Hubble time of H0 = 100 km/s/Mpc [Gyr]:
#: ``(astropy.units.Mpc / (100 * astropy.units.km / astropy.units.s)).to_value("Gyr")``.
HUBBLE_TIME = PC * 1e6 / (100.0 * 1e5) / (YEAR * 1e9)

#: Hubble distance of H0 = 100 km/s/Mpc [Mpc]: ``c / (100 km/s/Mpc)``.
HUBBLE_DISTANCE = C_LIGHT_KM_S / 100.0

#: AB flux [maggies] at 10 pc of a source of 1 Lsun/Hz: ``Lsun / (4 pi (10 pc)^2) / maggie``.
MAGGIES_10PC_PER_LSUN_HZ = LSUN / (4.0 * math.pi * (10.0 * PC) ** 2) / MAGGIE

#: Wavelength of Lyman alpha in vacuum [Angstrom].
LYMAN_ALPHA = 1215.67

#: Lyman limit [Angstrom] (the value Inoue+ 2014 use).
LYMAN_LIMIT = 911.8

PERCENTILES = (15.865525393, 50.0, 84.134474607)
"""-1, 0 and +1 standard deviation of a Gaussian."""
