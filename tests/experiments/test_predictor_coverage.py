"""The coverage benchmark: sessions held out are judged by the labels measured in them."""

import pytest

from experiments.benchmarks.prediction.active_measuring import made_up
from experiments.benchmarks.prediction.predictor_coverage import main, measure


def test_more_confidence_holds_more_with_wider_intervals():
    data = made_up()
    low, high = (measure(data, 4, confidence, seed=1) for confidence in (0.3, 0.95))
    assert low.covered < high.covered
    assert low.half_width < high.half_width
    assert high.covered > 0.7


@pytest.mark.parametrize(
    "arguments", [["--seeds", "1"], ["--sessions", "1"], ["--confidence", "1"]]
)
def test_what_cannot_be_measured_is_refused(arguments, capsys):
    assert main(arguments) == 2
    assert "must be >= 2 and confidence in (0, 1)" in capsys.readouterr().err
