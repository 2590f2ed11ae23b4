"""The axes of a front: ticks stand where their labels say, and cut bars are marked."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import browser
import pytest
from run_fakes import make_run

from nas.plots.axis import even_ticks, joule_frame, position, quality_axis
from nas.plots.front import PlotPoint, _bars, plot_front
from nas.plots.style import CUT
from nas.reporting.data import page_data
from nas.reporting.page import write_page
from nas.tasks.base.metric import METRICS, Metric

SVG = "{http://www.w3.org/2000/svg}"
# As a page's drawing has them, so that both renderers are read alike.
SHARES = {
    "percent": ((0.9412, 0.9733, 0.9807), (0.31, 0.62, 0.94), (0.98, 0.981, 0.982)),
    "hundred": ((0.021, 0.19, 0.21), (0.2, 0.204, 0.206)),
    "bits": ((2**-3.453, 2**-3.1, 2**-2.72), (2**-8.0, 2**-1.01), (2**-1.5, 2**-1.49)),
}
CASES = [(scale, shares) for scale, several in SHARES.items() for shares in several]
NAMED = {"percent": "accuracy", "hundred": "bleu", "bits": "bits_per_byte"}


def number(label):
    return float(label.rstrip("%"))


@pytest.mark.parametrize(("scale", "shares"), CASES)
def test_a_tick_is_where_its_label_says(scale, shares):
    metric = METRICS[NAMED[scale]]
    axis = quality_axis(metric, shares, [0.004] * len(shares))
    assert axis.low < min(position(metric, s) for s in shares) <= axis.high
    assert 3 <= len(axis.ticks) <= 10
    for at, label in axis.ticks:
        share = metric.share(number(label) / (100 if scale == "percent" else 1))
        assert at == pytest.approx(position(metric, share), abs=1e-12)
        assert axis.low <= at <= axis.high
    steps = {round(b - a, 9) for (a, _), (b, _) in zip(axis.ticks, axis.ticks[1:], strict=False)}
    assert len(steps) == 1 and len({label for _, label in axis.ticks}) == len(axis.ticks)


def test_positions_rise_with_quality_and_are_what_tables_print():
    for metric in METRICS.values():
        assert position(metric, 0.5) < position(metric, 0.6)
        printed = number(metric.text(0.3))
        assert abs(position(metric, 0.3)) == pytest.approx(printed, abs=0.006)
    assert position(METRICS["bits_per_byte"], 0.0) == float("-inf")


@pytest.mark.parametrize("span", [1e-4, 0.013, 0.9, 1.01, 2.2, 7, 31, 100])
def test_ticks_are_some_at_any_span(span):
    found = even_ticks(50.003, 50.003 + span, 0, 1000)
    assert 3 <= len(found) <= 10


def test_a_long_bar_does_not_widen_a_frame_without_end():
    metric = METRICS["accuracy"]
    plain = quality_axis(metric, [0.9, 0.95], [0.01, 0.01])
    long = quality_axis(metric, [0.9, 0.95], [0.01, 0.5])
    assert plain.high - plain.low < long.high - long.low < 3 * (plain.high - plain.low)
    low, high = joule_frame([1e-5, 1e-4], [1e-9, 1e-4], [1e-5, 1e-1])
    assert 1e-7 < low < 1e-5 and 1e-4 < high < 1e-2


def drawn(path):
    """What an SVG of the front says: ticks of quality as (height, label), and the words."""
    root = ET.parse(path).getroot()
    ticks = [
        (float(text.get("y")), "".join(text.itertext()).strip())
        for group in root.iter(f"{SVG}g")
        if re.fullmatch(r"ytick_\d+", group.get("id") or "")
        for text in group.iter(f"{SVG}text")
        if text.get("y") is not None
    ]
    return ticks, " ".join("".join(t.itertext()) for t in root.iter(f"{SVG}text"))


def check_even(ticks):
    """Heights are linear in labels."""
    assert len(ticks) >= 3
    (y0, t0), (y1, t1) = ticks[0], ticks[-1]
    for y, label in ticks:
        share = (number(label) - number(t0)) / (number(t1) - number(t0))
        assert y == pytest.approx(y0 + share * (y1 - y0), abs=0.5)


def point(kind, energy_j, share, se=0.003, wide=1.05):
    return PlotPoint(kind, energy_j, energy_j / wide, energy_j * wide, share, se)


@pytest.mark.parametrize(("scale", "shares"), CASES)
def test_the_pictures_ticks_are_even(tmp_path, scale, shares):
    points = [point("front", 1e-5 * 2**i, s) for i, s in enumerate(shares)]
    plot_front(
        points, tmp_path / "f.svg", title="t", energy_label="e", metric=METRICS[NAMED[scale]]
    )
    ticks, words = drawn(tmp_path / "f.svg")
    check_even(ticks)
    assert CUT not in words


def test_a_cut_bar_is_marked_in_the_picture(tmp_path):
    points = [point("front", 1e-5, 0.5), point("front", 2e-5, 0.6), point("complete", 3e-5, 0.4)]
    for changes in ({"quality_se": 0.5}, {"energy_high_j": 1.0}, {"quality": 0.0}):
        odd = replace(points[2], **changes)
        plot_front(
            [*points[:2], odd],
            tmp_path / "f.svg",
            title="t",
            energy_label="e",
            metric=METRICS["bits_per_byte"],
        )
        assert CUT in drawn(tmp_path / "f.svg")[1], changes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("axis") / "run", trials=10)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda m: m.key)
def test_the_page_is_given_the_pictures_axis(run, metric):
    data = page_data(replace(run, metric=metric))
    shown = [t for t in data["trials"] if t["place"] in ("front", "trained")]
    axis = quality_axis(metric, [t["quality"] for t in shown], [t["quality_se"] for t in shown])
    assert data["axis"]["ticks"] == axis.ticks
    assert (data["axis"]["low"], data["axis"]["high"]) == (axis.low, axis.high)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if browser.found() is None:
        pytest.skip("no Chromium on this machine")
    page = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


TICKS = """[...document.querySelectorAll('#plot text[text-anchor=end]')].map(
    (t) => [Number(t.getAttribute('y')) - 4, t.textContent])"""
POINTS = """[...document.querySelectorAll('#plot .point')].map(
    (g) => [Number(g.dataset.trial), Number(g.querySelector('.halo').getAttribute('cy'))])"""


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda m: m.key)
def test_points_of_a_page_stand_between_the_ticks_that_their_scores_say(
    page, run, tmp_path, metric: Metric
):
    data = page_data(replace(run, metric=metric))
    odd = next(t for t in data["trials"] if t["place"] == "front")
    odd["energy_high_j"] = 1.0
    path = tmp_path / "page.html"
    write_page(data, path)
    page.errors.clear()
    page.open(path.as_uri())
    ticks = page.run(TICKS)
    check_even(ticks)
    (y0, t0), (y1, t1) = ticks[0], ticks[-1]
    trials = {t["trial"]: t for t in data["trials"]}
    for trial, y in page.run(POINTS):
        score = number(metric.text(trials[trial]["quality"]))
        share = (score - number(t0)) / (number(t1) - number(t0))
        assert y == pytest.approx(y0 + share * (y1 - y0), abs=1.5)
    assert page.run("document.querySelectorAll('#plot .cut').length") == 1
    assert not page.errors


def test_a_picture_of_one_member_has_ticks_of_joules(tmp_path):
    point = PlotPoint("front", 1.3e-4, 1.29e-4, 1.31e-4, 0.9, 0.01)
    plot_front([point], tmp_path / "f.svg", title="t", energy_label="e")
    words = drawn(tmp_path / "f.svg")[1]
    assert words.count(" µJ") >= 2, words


def test_a_member_without_a_finite_score_goes_on_below_the_picture_alone():
    metric = METRICS["bits_per_byte"]
    bars = _bars(PlotPoint("front", 1e-4, 1e-4, 1e-4, 0.0, 0.01), metric, -3.0)
    assert bars.y == bars.y_high == -3.0 and bars.y_low == -float("inf")


def test_a_page_of_one_member_has_ticks_of_joules(page, run, tmp_path):
    data = page_data(run)
    member = next(t for t in data["trials"] if t["place"] == "front")
    member |= {"energy_j": 1.3e-4, "energy_low_j": 1.29e-4, "energy_high_j": 1.31e-4}
    data["trials"] = [member]
    data["axis"]["joules"] = joule_frame([1.3e-4], [1.29e-4], [1.31e-4])
    path = tmp_path / "page.html"
    write_page(data, path)
    page.open(path.as_uri())
    labels = page.run("[...document.querySelectorAll('#plot text')].map((t) => t.textContent)")
    assert sum(text.endswith("J") for text in labels) >= 2, labels
