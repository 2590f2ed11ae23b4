"""What surrogates see of a row, and what of it is expected to matter."""

import numpy as np
import pytest

from nas.samplers.features import Features
from nas.samplers.parameters import Parameter, Parameters


def test_what_a_series_has_in_common_is_expected_to_matter_most():
    parameters = Parameters(
        (Parameter("width", 3, (0.0, 0.5, 1.0)), *(Parameter(f"l{i}.h", 2) for i in range(4)))
    )
    rng = np.random.default_rng(0)
    features = Features(parameters, parameters.random(500, rng))
    rows = parameters.random(50, rng)
    assert features.expected.shape == (features(rows).shape[1],)
    width, members, mean = (
        features.expected[:2],
        features.expected[2:6],
        features.expected[6],
    )
    assert np.all(width == 0) and np.all(members < 0) and mean > 0
    # It is the mean that stands there.
    expected = np.corrcoef(features(rows)[:, 6], rows[:, 1:].mean(axis=1))[0, 1]
    assert abs(expected) == pytest.approx(1)
