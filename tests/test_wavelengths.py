"""Air against vacuum."""

import numpy as np

from jaxsed.bands.wavelengths import air_to_vacuum


def test_air_wavelengths_become_vacuum_ones():
    air = np.array([1215.67, 4861.333, 5006.843, 6562.819, 10830.34])
    vacuum = np.array([1215.67, 4862.691, 5008.240, 6564.632, 10833.306])
    np.testing.assert_allclose(air_to_vacuum(air), vacuum, atol=0.005)
