"""The page of a run: its data, what a browser makes of it, and the server of a live one."""

import http.client
import io
import json
import re
import threading
import urllib.request
from dataclasses import replace
from urllib.parse import urlsplit

import browser
import pytest
from PIL import Image
from run_fakes import make_run

from nas.analysis.summary import summarise
from nas.charts.chart import COLOURS
from nas.cli.main import main
from nas.core.units import format_interval, format_joules
from nas.reporting.data import page_data
from nas.reporting.page import SCRIPTS, asset, embedded, render_page, write_page
from nas.reporting.server import serve
from nas.store.run_file import go_on
from nas.tasks.base.metric import BITS_PER_BYTE

needs_browser = pytest.mark.skipif(browser.found() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report") / "run", trials=12)


@pytest.fixture(scope="module")
def data(run):
    return page_data(run)


def test_the_page_holds_what_the_front_says(run, data):
    on_front = {t["trial"]: t for t in data["trials"] if t["on_front"]}
    front = run.front()
    assert set(on_front) == {m.trial for m in front}
    for member in front:
        shown, card = on_front[member.trial], dict(on_front[member.trial]["card"])
        assert (shown["quality_at"], shown["energy_j"]) == (100 * member.quality, member.energy_j)
        assert shown["energy"] == format_joules(member.energy_j)
        interval = format_interval(member.energy)
        assert card["joules (fake)"] == f"{interval} per sample"
    columns = dict(
        zip(data["members"]["head"], zip(*data["members"]["rows"], strict=True), strict=True)
    )
    assert columns["accuracy"] == tuple(run.metric.text(m.quality, m.quality_se) for m in front)
    spent = dict(data["account"]["rows"])["all"]
    assert spent == f"{format_joules(summarise(run).spent_energy_j)} (fake)"
    way, search = map(dict, data["provenance"])
    assert re.fullmatch(r"\w+, hash \w+", way["protocol"]) and way["device"] == "d"
    assert way["trials"].startswith("12, in ") and "seed 0" in search["search"]


def test_a_page_of_thousands_of_trials_is_below_20_megabytes(data):
    n = len(data["trials"])
    assert n > 5
    # A trial's own data and its marks in two charts; steps of the history are counted by stairs.
    own = {"trials": data["trials"], "charts": data["charts"] | {"progress": []}}
    assert len(embedded(own)) / n * 5000 < 20e6
    assert ": " not in embedded({"a": [1, 2], "b": 3})


def test_its_version_changes_with_the_run_alone(run, data):
    assert page_data(run)["version"] == data["version"]
    other = page_data(replace(run, metric=BITS_PER_BYTE))
    assert other["version"] != data["version"]


def test_the_page_needs_no_other_file_and_no_network(data):
    text = render_page(data)
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL).group(1)
    assert not re.search(r"(?:src|href)=|url\(|@import", text)
    # The one address is the name of SVG's namespace, which nothing fetches.
    assert set(re.findall(r"https?://[^\s\"'`)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in script and "eval(" not in script
    assert "connect-src 'none'" in text and "connect-src 'self'" in render_page(data, live=True)


def test_the_script_makes_no_ticks_and_no_texts_of_joules():
    script = "".join(map(asset, SCRIPTS))
    assert not re.search(r"Math\.log|Math\.floor|toPrecision|toFixed|[mkµn]J|1e-?\d", script)


HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"


def test_what_a_name_holds_cannot_end_its_element(data):
    text = embedded(data | {"run": HOSTILE})
    assert "<" not in text and ">" not in text and json.loads(text)["run"] == HOSTILE


def test_the_command_writes_one_file(run, tmp_path, capsys):
    to = tmp_path / "page.html"
    assert main(["report", str(run.folder), "--to", str(to)]) == 0
    assert capsys.readouterr().out == f"{to}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert main(["report", str(run.folder), "--to", str(to), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"page": str(to)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "8765"], "port requires --watch"),
        (["--watch", "--to", "x.html"], "to must be left out with --watch"),
        (["--watch", "--port", "70000"], "port must be in 0 to 65535, got 70000"),
        (["--to", "/proc/no/page.html"], "page /proc/no/page.html must be writable"),
    ],
)
def test_bad_options_are_one_line(run, options, words, capsys):
    assert main(["report", str(run.folder), *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.fixture
def served(run):
    with serve(run.folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asked(server, path, host=None, token=None):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    if token is None:
        token = urlsplit(server.url).path.strip("/")
    headers = {} if host is None else {"Host": host}
    connection.request("GET", f"/{token}{path}" if token else path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_a_live_page_is_served_to_this_machine_alone(run, served):
    status, body = asked(served, "/data.json")
    assert status == 200 and json.loads(body)["run"] == run.folder.name
    assert b'data-live="yes"' in asked(served, "/")[1]
    assert asked(served, "/../run.json")[0] == asked(served, "/run.json")[0] == 404
    # A name of elsewhere that leads here, as in DNS rebinding.
    assert asked(served, "/data.json", host="evil.example:80")[0] == 403


def test_a_live_page_needs_the_address_that_was_printed(run, served):
    token = urlsplit(served.url).path.strip("/")
    assert len(token) >= 32
    for wrong in ("", "wrong", token[:-1], token.swapcase(), f"{token}x", "%ff", f"{token}/.."):
        for path in ("/", "/data.json"):
            status, body = asked(served, path, token=wrong)
            assert status == 404 and run.folder.name.encode() not in body, wrong
    with serve(run.folder, 0) as another:
        assert urlsplit(another.url).path != urlsplit(served.url).path


def test_an_address_without_its_last_slash_leads_to_the_page(run, served):
    with urllib.request.urlopen(served.url.removesuffix("/"), timeout=30) as answer:
        assert answer.url == served.url and b'data-live="yes"' in answer.read()


def test_a_port_that_is_taken_is_refused(run, served):
    port = served.server_address[1]
    with pytest.raises(ValueError, match=f"nothing listens on, got {port}"):
        serve(run.folder, port)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if browser.found() is None:
        pytest.skip("no Chromium on this machine")
    page = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


def opened(page, data, folder, **size):
    path = folder / "page.html"
    write_page(data, path)
    page.errors.clear()
    page.open(path.as_uri(), **size)
    return page


def points(page):
    return page.run("[...document.querySelectorAll('#plot [data-trial]')].length")


@needs_browser
def test_a_click_on_a_point_shows_its_card(page, data, tmp_path):
    opened(page, data, tmp_path)
    assert points(page) == 12
    member = next(t for t in data["trials"] if t["on_front"])
    page.click(f"#plot [data-trial='{member['trial']}'] .halo")
    card = page.run("document.getElementById('card').innerText")
    assert member["title"] in card and f"{member['quality_at']:.2f}%" in card
    assert not page.errors


@needs_browser
def test_a_budget_filters_and_the_button_shows_all_again(page, data, tmp_path):
    opened(page, data, tmp_path)
    energies = sorted(t["energy_j"] for t in data["trials"])
    budget = (energies[3] + energies[4]) / 2
    page.run("document.getElementById('budget-text').focus()")
    page.call("Input.insertText", text=f"{budget * 1e6:.6f} uJ")
    assert points(page) == 4
    page.click("#front-only")
    fits = [t for t in data["trials"] if t["on_front"] and t["energy_j"] <= budget]
    assert points(page) == len(fits)
    page.click("#filter button")
    assert points(page) == 12
    page.run("document.getElementById('budget-text').focus()")
    page.call("Input.insertText", text="nonsense")
    field = "document.getElementById('budget-text').getAttribute('aria-invalid')"
    assert page.run(field) == "true" and points(page) == 12


@needs_browser
def test_the_keyboard_alone_is_enough(page, data, tmp_path):
    opened(page, data, tmp_path)
    page.run("document.querySelector('#plot [tabindex=\"0\"]').focus()")
    focused = "document.activeElement.getAttribute('data-trial')"
    first = page.run(focused)
    page.press("ArrowRight")
    second = page.run(focused)
    assert first is not None and second not in (None, first)
    page.press("Enter", "\r")
    assert page.run("document.activeElement.id") == "card"
    trial = next(t for t in data["trials"] if t["trial"] == int(second))
    assert trial["title"] in page.run("document.getElementById('card').innerText")


@needs_browser
@pytest.mark.parametrize("width", [360, 1000])
def test_nothing_is_wider_than_the_screen(page, data, tmp_path, width):
    opened(page, data, tmp_path, width=width)
    assert page.run("document.documentElement.scrollWidth") <= width
    with Image.open(io.BytesIO(page.screenshot())) as image:
        assert image.width == width
        # Something was drawn, in more colours than a background and its text have.
        assert len(image.convert("RGB").getcolors(1 << 24)) > 20


@needs_browser
def test_what_a_name_holds_is_never_run(page, data, tmp_path):
    trials = [t | {"title": HOSTILE, "label": HOSTILE} for t in data["trials"]]
    texts = dict.fromkeys(data["texts"], HOSTILE)
    chart = data["charts"]["front"][0]
    charts = data["charts"] | {"front": [chart | {"x": chart["x"] | {"label": HOSTILE}}]}
    changes = {"run": HOSTILE, "texts": texts, "trials": trials, "charts": charts}
    opened(page, data | changes, tmp_path)
    page.click("#plot [data-trial] .halo")
    assert page.run("document.querySelectorAll('img').length") == 0
    assert HOSTILE in page.run("document.querySelector('h1').textContent")
    assert page.run("document.title") != "taken"


@needs_browser
def test_the_slider_filters_by_the_joules_of_trials(page, data, tmp_path):
    opened(page, data, tmp_path)
    page.run("document.getElementById('budget').focus()")
    page.press("Home")
    assert points(page) == 0
    for _ in range(3):
        page.press("ArrowRight")
    third = sorted(data["trials"], key=lambda t: t["energy_j"])[2]
    assert points(page) == 3
    assert page.run("document.getElementById('budget-text').value") == third["energy"]
    page.press("End")
    assert points(page) == 12
    assert page.run("document.getElementById('budget-text').value") == ""


@needs_browser
def test_every_chart_is_drawn_and_importance_only_on_request(page, run, tmp_path):
    charts = ("plot", "progress", "predictions", "importance", "fidelity")
    for with_importance in (True, False):
        opened(page, page_data(run, with_importance=with_importance), tmp_path)
        drawn = {n: page.run(f"document.querySelectorAll('#{n} svg g').length") for n in charts}
        empty = {name for name, marks in drawn.items() if not marks}
        assert empty == {"fidelity"} | (set() if with_importance else {"importance"})
        hidden = page.run("[...document.querySelectorAll('section[hidden]')].map((s) => s.id)")
        # Examples are of tasks that have some to show, such as found boxes.
        assert set(hidden) == {f"{name}-section" for name in (*empty, "examples")}
    assert not page.errors


@needs_browser
@pytest.mark.parametrize(("scheme", "role"), [("light", "light"), ("dark", "dark")])
def test_roles_have_the_colours_of_the_description(page, data, tmp_path, scheme, role):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.call("Emulation.setEmulatedMedia", features=features)
    opened(page, data, tmp_path)
    mark = "document.querySelector('#plot .role-front .mark')"
    fill = page.run(f"getComputedStyle({mark}).fill")
    page.call("Emulation.setEmulatedMedia", features=[])
    code = getattr(COLOURS["front"], role).removeprefix("#")
    assert fill == f"rgb({', '.join(str(int(code[i : i + 2], 16)) for i in (0, 2, 4))})"


@needs_browser
def test_bits_per_byte_are_shown_as_such(page, run, tmp_path):
    opened(page, page_data(replace(run, metric=BITS_PER_BYTE)), tmp_path)
    best = max(m.quality for m in run.front())
    text = page.run("document.body.innerText")
    assert BITS_PER_BYTE.text(best) in text and "Bits per byte against joules" in text
    page.run("document.getElementById('quality').focus()")
    page.call("Input.insertText", text=BITS_PER_BYTE.text(best))
    assert page.run("document.getElementById('quality-sense').textContent") == "at most"
    allowed = float(BITS_PER_BYTE.text(best))
    kept = [r for r in run.records() if BITS_PER_BYTE.score(r.quality) <= allowed]
    assert points(page) == len(kept) < 12


@needs_browser
def test_a_live_page_follows_its_run(page, tmp_path):
    run = make_run(tmp_path / "run", trials=4)
    with serve(run.folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        page.errors.clear()
        page.open(server.url)
        page.wait("document.documentElement.getAttribute('data-contact') === 'yes'")
        assert points(page) == 4 and not page.errors
        go_on(replace(run, metric=BITS_PER_BYTE))
        head = "document.getElementById('front-head').textContent"
        page.wait(f"{head} === 'Bits per byte against joules'")
        # While the run cannot be read the page says so, and asks again.
        config = run.folder / "run.json"
        config.rename(run.folder / "away.json")
        page.wait("document.documentElement.getAttribute('data-contact') === 'no'")
        assert "asking again" in page.run("document.getElementById('status').textContent")
        (run.folder / "away.json").rename(config)
        page.wait("document.documentElement.getAttribute('data-contact') === 'yes'")
        server.shutdown()
        thread.join()
