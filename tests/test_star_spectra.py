"""Arrays of spectra and labels: what is refused, and why."""

import numpy as np
import pytest

from jaxsed import stars as st


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"error": np.ones((2, 3))}, "expected wavelengths"),
        ({"wave": np.array([1.0, 3.0, 2.0, 4.0])}, "pixel 2 does not"),
        ({"names": ("a", "a"), "labels": np.zeros((2, 2))}, "named twice"),
        ({"names": ("a",), "labels": np.zeros((2, 2))}, "expected labels"),
        ({"names": ("a", "b"), "labels": [[1, -9999], [2, np.nan]]}, "no star has a label b"),
        ({"names": ("a",), "labels": np.ones((2, 1)), "label_error": [[0.1], [-0.2]]}, "row 1"),
        ({"windows": {"Mg": np.ones(3)}}, "window of Mg"),
    ],
)
def test_impossible_arrays_are_refused(change, complaint):
    given = {"wave": np.arange(1.0, 5.0), "flux": np.ones((2, 4)), "error": np.ones((2, 4))}
    with pytest.raises(ValueError, match=complaint):
        st.spectra(**(given | change))
