"""Pictures with found and true boxes, in plots and on the page."""

import base64
import json
import re

import browser
import numpy as np
import pytest
from PIL import Image
from run_fakes import make_run

from nas.charts.examples import examples_chart
from nas.charts.matplotlib_figure import save
from nas.cli.main import main
from nas.reporting.data import page_data
from nas.reporting.page import write_page
from nas.tasks.vision.example_boxes import (
    EXAMPLES,
    ExampleBox,
    ExamplePicture,
    Examples,
    ExampleScore,
    examples_in,
    save_examples,
)

RED, GREEN = (200, 30, 40), (20, 220, 60)


def picture(height, width, true, found):
    pixels = np.full((height, width, 3), RED, np.uint8)
    pixels[:, width // 2 :] = GREEN
    return ExamplePicture(
        height,
        width,
        base64.b64encode(pixels.tobytes()).decode(),
        tuple(ExampleBox(label, None, *ends) for label, *ends in true),
        tuple(ExampleBox(*each) for each in found),
    )


@pytest.fixture
def examples():
    return Examples(
        (ExampleScore("map", 0.5, 0.01), ExampleScore("map50", 0.75, 0.02)),
        (
            picture(10, 20, [("<cat>", 0.0, 0.0, 0.5, 1.0)], [("dog", 0.9, 0.5, 0.5, 1.0, 1.0)]),
            picture(16, 16, [], []),
            picture(16, 8, [], [("dog", 0.31, 0.0, 0.0, 1.0, 0.5)]),
        ),
    )


def test_they_are_kept_in_the_folder_of_a_trial(tmp_path, examples):
    assert examples_in(tmp_path) is None
    save_examples(tmp_path, examples)
    assert examples_in(tmp_path) == examples
    path = tmp_path / EXAMPLES
    for change, message in (
        (("height", 11), "pixels must be 660 bytes, got 600"),
        (("height", 9999), "height must be at most 512"),
        (("pixels", "?!"), "pixels must be Base64"),
        (("true", [{"label": 1}]), "label|left"),
    ):
        data = json.loads(path.read_text())
        data["pictures"][0].update([change])
        other = tmp_path / "other"
        other.mkdir(exist_ok=True)
        (other / EXAMPLES).write_text(json.dumps(data))
        with pytest.raises(ValueError, match=message):
            examples_in(other)


def test_boxes_lie_on_their_pictures(examples):
    chart = examples_chart(examples, "trial 3")
    assert chart.title == "trial 3\nmAP@[0.5:0.95] 50.0% ± 1.0%\nmAP@0.5 75.0% ± 2.0%"
    first, second, third = chart.pictures
    assert (first.x_high - first.x_low) == pytest.approx(2 * (first.y_high - first.y_low))
    assert second.x_low > 1 and second.y_low > 1 > third.y_high
    true, found = chart.series
    (left,) = true.marks
    assert (left.x_low, left.y_low, left.y_high) == (first.x_low, first.y_low, first.y_high)
    assert left.x_high == pytest.approx((first.x_low + first.x_high) / 2)
    corner = found.marks[0]
    assert (corner.x_high, corner.y_low) == (first.x_high, first.y_low)
    assert corner.y_high == pytest.approx((first.y_low + first.y_high) / 2)
    assert [text.text for text in chart.texts] == ["dog 0.90", "dog 0.31"]


def test_a_plot_shows_the_pictures(tmp_path, examples):
    save((examples_chart(examples, "trial 3"),), tmp_path / "x.png")
    pixels = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
    for colour in (RED, GREEN):
        assert 0.05 < (np.abs(pixels - colour).sum(axis=-1) < 6).mean() < 0.5
    save((examples_chart(examples, "trial 3"),), tmp_path / "x.svg")
    words = re.findall(r">([^<>]+)</text>", (tmp_path / "x.svg").read_text())
    assert "dog 0.90" in words and "true box" in words


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("examples") / "run", trials=12)


def test_a_run_without_them_says_so(run, tmp_path, capsys):
    words = ["plot", str(run.folder), "--what", "examples", "--to", str(tmp_path / "x.png")]
    assert main(words) == 2
    assert re.search(r"trial \d+ must have examples to draw", capsys.readouterr().err)
    assert page_data(run)["charts"]["examples"] == []


@pytest.mark.skipif(browser.found() is None, reason="no Chromium on this machine")
def test_the_page_draws_them_without_an_image(run, tmp_path, examples):
    number = run.front().recommended().trial
    folder = run.trial_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    save_examples(folder, examples)
    path = tmp_path / "page.html"
    write_page(page_data(run), path)
    page = browser.Browser(tmp_path / "profile")
    try:
        page.open(path.as_uri())
        section = "document.getElementById('examples-section')"
        assert page.run(f"{section}.hidden") is False
        assert page.run(f"{section}.querySelectorAll('canvas').length") == 3
        # Three boxes, and two in the legend.
        assert page.run(f"{section}.querySelectorAll('rect.frame').length") == 3 + 2
        pixel = (
            f"{section}.querySelector('canvas').getContext('2d').getImageData(15, 5, 1, 1).data"
        )
        assert page.run(f"[...{pixel}].join()") == ",".join(map(str, (*GREEN, 255)))
        assert not page.errors
    finally:
        page.close()
