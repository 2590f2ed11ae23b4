"""``make campaign`` as whoever has a card meets it: with only what measuring imports."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

import pytest
from fakes import FakeLab

from experiments.campaign import planned, simulation
from experiments.campaign.simulation import SimulatedBoard, simulate
from predictors.campaign.costs import ItemCosts, held_s
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import read_records

ROOT = Path(__file__).parents[2]
# What measuring imports, by distribution; their own requirements come with them.
LISTED = (
    *("torch", "numpy", "scipy", "pyyaml", "pillow", "rich", "safetensors"),
    *("nvidia-ml-py", "torchao", "joulenas"),
)
# Every Python of the command begins with this: modules of distributions that are not listed, nor
# required by those, cannot be imported.
HOOK = """
import sys
from importlib import metadata
import re

def name_of(text):
    return re.split(r"[^A-Za-z0-9_.-]", text)[0].lower().replace("_", "-")

allowed, left = set(), list(LISTED)
while left:
    name = name_of(left.pop())
    if name in allowed:
        continue
    allowed.add(name)
    try:
        wanted = metadata.requires(name) or () if name != "joulenas" else ()
    except metadata.PackageNotFoundError:
        continue
    left += [text for text in wanted if "extra ==" not in text]
blocked = {
    module
    for module, names in metadata.packages_distributions().items()
    if not allowed & {name_of(name) for name in names}
}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture
def bare(tmp_path):
    """The environment of a machine that has what is listed and nothing else, no compiler."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"LISTED = {LISTED!r}\n{HOOK}")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}",
        "CXX": "no-such-compiler",
        "JOULENAS_LOCK_FOLDER": str(tmp_path / "locks"),
    }


def make(*words):
    return ["make", "-s", "-C", str(ROOT), "campaign", f"PYTHON={sys.executable}", *words]


def test_the_hook_blocks_what_is_not_listed(bare):
    for module in ("ray", "optuna", "sklearn", "pyarrow", "matplotlib"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            env=bare,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "is blocked" in done.stderr, module


@pytest.mark.thorough
def test_it_measures_by_what_is_listed_alone_and_goes_on(bare, tmp_path):
    folder = tmp_path / "records"
    words = make("MINUTES=3", f"TO={folder}", "ARGS=--device cpu --n 2 --json")
    done = subprocess.run(
        words, env=bare, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    records = read_records(folder / "quick.jsonl").records
    assert found["new_records"] == len(records) >= 3
    assert {record.role for record in records} == {"candidate", "reference"}
    # It says first what it will do and for how long.
    first, second = done.stderr.splitlines()[:2]
    assert "protocol quick" in first and "about" in second
    # The same command has nothing more to do, or does what is left.
    again = subprocess.run(
        [*words[:-1], "ARGS=--device cpu --n 2 --plan"],
        env=bare,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert again.returncode == 0 and "about 0 s" not in again.stderr, again.stderr


def test_records_are_whole_after_a_kill(bare, tmp_path):
    folder = tmp_path / "records"
    words = [sys.executable, "-m", "experiments.campaign", "--device", "cpu", "--quiet"]
    process = subprocess.Popen(
        [*words, "--to", str(folder)],
        env=bare,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until_s = time.monotonic() + 200
        path = folder / "quick.jsonl"
        while not (path.exists() and path.stat().st_size) and time.monotonic() < until_s:
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found = read_records(path)
    assert found.records and not found.cut_off


def test_make_campaign_installs_nothing():
    rule = re.search(r"^campaign:(.*)\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert not rule[1].strip() and "pip" not in rule[2] and "venv" not in rule[2]
    shown = subprocess.run(
        [*make("MINUTES=30", "TO=some where"), "-n"], capture_output=True, text=True, check=True
    )
    assert f"{sys.executable} -m experiments.campaign --minutes 30" in shown.stdout
    assert "pip" not in shown.stdout


@lru_cache
def planned_at(name, windows_s):
    costs = ItemCosts(windows_s=windows_s)
    return planned.make_plan("cuda:0", get_protocol(name), costs.seconds), costs


def counts(name, windows_s=None, n_slices=1, **options):
    protocol = get_protocol(name)
    plan, costs = planned_at(name, windows_s or held_s(protocol, simulation.TICK_S))
    board = SimulatedBoard(costs, protocol, **options)
    return simulate(plan, board, costs, slice_s=480.0, n_slices=n_slices)


@pytest.mark.thorough
def test_the_first_slice_leaves_twenty_records_by_screening_at_the_stated_costs():
    first, second, third, *_ = found = counts("screening", 12.0, 40)
    # Nothing overlaps: a process 5 s, windows 12 s.
    assert first.records - first.references >= 20 and first.references >= 6
    assert first.quantised == second.quantised == 0 < third.quantised
    assert all(count.seconds <= 480.0 for count in found)
    assert sum(count.records - count.references for count in found) > 190


def test_the_first_slice_leaves_forty_records_by_the_short_protocol():
    first, *_ = counts("brief", overlaps=True)
    assert first.records >= 40 and first.references >= 6 and first.quantised == 0


def test_the_page_tells_what_the_simulation_counts():
    page = " ".join((ROOT / "docs" / "gpu.md").read_text().split())
    stated, brief = counts("screening", 12.0)[0], counts("brief", overlaps=True)[0]
    slow = [counts("screening", overlaps=overlaps)[0].records for overlaps in (False, True)]
    for words in (
        f"leave {stated.records} records, {stated.records - stated.references} of them candidates",
        f"they leave {brief.records}. By",
        f"they leave {slow[0]} to {slow[1]}:",
        f"for {held_s(get_protocol('brief'), simulation.TICK_S):.1f} s a measurement",
        f"{held_s(get_protocol('screening'), simulation.TICK_S):.1f} s each",
    ):
        assert words in page, words


@pytest.mark.parametrize("name", ["brief", "screening", "final"])
def test_what_a_protocol_takes_is_what_it_takes_on_a_board(name):
    protocol = get_protocol(name)
    lab = FakeLab(protocol)
    plan = planned.make_plan("cuda:0", protocol, ItemCosts().seconds, n=1)
    started_s = lab.clock()
    lab(plan.items[0])
    assert held_s(protocol, 0.1) == pytest.approx(lab.clock() - started_s, abs=0.7)


@pytest.mark.parametrize(
    "options",
    [
        {"fails": ["int8", "int8wo", "fp8", "int4wo", "2:4"]},
        {"hangs": ["fp32"]},
        {"hangs": ["2:4"]},
    ],
    ids=str,
)
def test_a_broken_kernel_leaves_the_other_records(options):
    first, *others = counts("brief", n_slices=5, overlaps=True, **options)
    assert first.records >= 15 and all(count.records > 0 for count in others)


def test_a_slice_too_short_for_one_record_shows_none(capsys):
    assert simulation.main(["--slice-s", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["slices"] == []


def test_the_simulation_is_shown_and_says_that_it_is_one(capsys):
    assert simulation.main(["--slices", "1", "--windows-s", "12"]) == 0
    out = capsys.readouterr().out
    assert "simulated" in out and "records" in out
    assert simulation.main(["--slices", "2", "--json", "--fails", "int8"]) == 0
    assert len(json.loads(capsys.readouterr().out)["slices"]) == 2
    for wrong in (["--process-s", "0"], ["--windows-s", "nan"], ["--protocol", "brisk"]):
        assert simulation.main(wrong) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
