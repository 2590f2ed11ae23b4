"""The axes of a front: ticks stand where their labels say, and cut bars are marked."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import browser
import pytest
from run_fakes import make_run
from search_fakes import changed

from nas.charts.axis import (
    count_axis,
    even_ticks,
    joule_axis,
    position,
    quality_axis,
    quality_range,
)
from nas.charts.chart import CUT, Axis, mark
from nas.charts.front import front_chart
from nas.charts.matplotlib_figure import save
from nas.core.units import format_joules, parse_joules
from nas.records.trial import judged
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
    axis = quality_axis("q", metric, shares, [0.004] * len(shares))
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
    plain = quality_axis("q", metric, [0.9, 0.95], [0.01, 0.01])
    long = quality_axis("q", metric, [0.9, 0.95], [0.01, 0.5])
    assert plain.high - plain.low < long.high - long.low < 3 * (plain.high - plain.low)
    axis = joule_axis("j", [(1e-9, 1e-5, 1e-5), (1e-4, 1e-4, 1e-1)])
    assert -7 < axis.low < -5 and -4 < axis.high < -2


@pytest.mark.parametrize("span", [0.0, 1e-3, 0.02, 0.5, 1.0, 2.3, 4.0, 9.0, 13.0])
@pytest.mark.parametrize("low", [-8.0, -4.31, 0.2])
@pytest.mark.parametrize("vertical", [True, False])
def test_ticks_of_joules_fit_and_stand_where_their_texts_say(low, span, vertical):
    ends = [10**low, 10 ** (low + span)]
    axis = joule_axis("j", [(j, j, j) for j in ends], vertical=vertical)
    assert 2 <= len(axis.ticks) <= 13
    for at, text in axis.ticks:
        assert axis.low <= at <= axis.high and format_joules(10**at) == text
        assert 10**at == pytest.approx(parse_joules(text), rel=1e-9 if span > 0.1 else 5e-3)
    if not vertical:
        width = (axis.high - axis.low) / 40
        for (a, left), (b, right) in zip(axis.ticks, axis.ticks[1:], strict=False):
            assert b - a >= width * (len(left) + len(right)) / 2


@pytest.mark.parametrize("high", [1, 2, 3, 7, 24, 300, 99_000])
def test_ticks_of_counts_are_whole_and_fit(high):
    axis = count_axis("n", high)
    assert axis.ticks[0] == (0, "0") and 2 <= len(axis.ticks) <= 10
    assert all(float(text) == at for at, text in axis.ticks)
    assert axis.low <= min(axis.ticks)[0] and max(axis.ticks)[0] <= axis.high


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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("axis") / "run", trials=10)


def with_qualities(run, monkeypatch, shares, **changes):
    """``run`` with trials of these qualities alone; the last has ``changes``."""
    trials = [changed(r, quality=s) for r, s in zip(judged(run.trials()), shares, strict=False)]
    trials[-1] = changed(trials[-1], **changes)
    monkeypatch.setattr(type(run), "trials", lambda self: trials)
    return trials


@pytest.mark.parametrize(("scale", "shares"), CASES)
def test_the_pictures_ticks_are_even(run, monkeypatch, tmp_path, scale, shares):
    with_qualities(run, monkeypatch, shares)
    chart = front_chart(replace(run, metric=METRICS[NAMED[scale]]), "fake")
    save([chart], tmp_path / "f.svg")
    ticks, words = drawn(tmp_path / "f.svg")
    check_even(ticks)
    assert CUT not in words


@pytest.mark.parametrize("changes", [{"quality_se": 0.5}, {"quality": 0.0}])
def test_a_cut_bar_is_marked_in_the_picture(run, monkeypatch, tmp_path, changes):
    last = with_qualities(run, monkeypatch, (0.5, 0.6, 0.4), **changes)[-1]
    chart = front_chart(replace(run, metric=METRICS["bits_per_byte"]), "fake")
    cut = {m.trial: m.cut for series in chart.series for m in series.marks if m.cut}
    assert chart.is_cut and set(cut) == {last.number} and "bottom" in cut[last.number]
    save([chart], tmp_path / "f.svg")
    assert CUT in drawn(tmp_path / "f.svg")[1]


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda m: m.key)
def test_the_page_is_given_the_pictures_chart(run, metric):
    data = page_data(replace(run, metric=metric))
    (chart,) = data["charts"]["front"]
    described = front_chart(replace(run, metric=metric), "fake").to_dict()
    assert chart == described and chart["y"]["ticks"]


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
    chart = data["charts"]["front"][0]
    odd = next(m for s in chart["series"] for m in s["marks"] if m["trial"] is not None)
    odd["cut"] = ["right"]
    path = tmp_path / "page.html"
    write_page(data, path)
    page.errors.clear()
    page.open(path.as_uri())
    ticks = page.run(TICKS)
    check_even(ticks)
    (y0, t0), (y1, t1) = ticks[0], ticks[-1]
    trials = {r.number: r for r in run.trials()}
    for trial, y in page.run(POINTS):
        score = number(metric.text(trials[trial].quality))
        share = (score - number(t0)) / (number(t1) - number(t0))
        assert y == pytest.approx(y0 + share * (y1 - y0), abs=1.5)
    assert page.run("document.querySelectorAll('#plot .cut').length") == 1
    assert not page.errors


def test_a_picture_of_one_member_has_ticks_of_joules(run, monkeypatch, tmp_path):
    with_qualities(run, monkeypatch, (0.9,))
    save([front_chart(run, "fake")], tmp_path / "f.svg")
    words = drawn(tmp_path / "f.svg")[1]
    assert words.count(" µJ") >= 2, words


def test_a_member_without_a_finite_score_stands_at_the_bottom_and_goes_on_below():
    metric = METRICS["bits_per_byte"]
    axes = Axis("x", -5.0, -3.0), Axis("y", -3.0, 0.0)
    point = mark(axes, (-4.1, -4.0, -3.9), quality_range(metric, 0.0, 0.01))
    assert point.y == point.y_high == point.y_low == -3.0 and point.cut == ("bottom",)
