"""Devices that a search measures on, by name: what is asked, kept, and seen of a run."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from record_fakes import made_record
from role_fakes import BIG, SMALL, big_j, small_j
from run_fakes import check_schema, make_run
from search_fakes import SPACE, WORKLOAD, changed, finished

from nas.analysis.summary import summarise
from nas.cli.main import main
from nas.cluster import measuring as ray_measure
from nas.cluster import roles as ray_roles
from nas.cluster.connect import ClusterError
from nas.cluster.measuring import Measurements
from nas.core.estimate import Estimate
from nas.core.files import write_json
from nas.core.plain import from_plain, to_plain
from nas.records.config import SearchConfig
from nas.records.device_names import MeasuredDevice, MeterFound
from nas.records.replicas import RESULT, pooled, replica_folder
from nas.records.trial import Trial
from nas.reporting.data import page_data
from search_spaces.space.sampling import largest

DEVICES = (MeasuredDevice("big", "cpu"), MeasuredDevice("small", "cuda:0"))
LAUNCH = "needs a kernel that is not here"


def on_both(candidate, *, fails=()):
    """What became of a trial that both devices measured, but for what the small one cannot."""
    record = finished(candidate)
    architecture = record.architecture
    own = replace(record.reading, device=BIG, energy_j=big_j(architecture))
    own = replace(own, low_j=own.energy_j, high_j=own.energy_j)
    if record.number in fails:
        return changed(record, reading=own, unmeasured={"small": LAUNCH})
    energy_j = small_j(architecture)
    other = replace(own, device=SMALL, energy_j=energy_j, low_j=energy_j, high_j=energy_j)
    return changed(record, reading=own, readings={"small": other})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Twenty trials, of which the small device could not measure number 3."""
    folder = tmp_path_factory.mktemp("runs") / "both"
    judge = lambda candidate: on_both(candidate, fails=(3,))  # noqa: E731
    return make_run(folder, trials=20, judge=judge, measure_on=DEVICES, max_joules=2e-4)


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("h100", MeasuredDevice("h100")),
        ("xeon=cpu", MeasuredDevice("xeon", "cpu")),
        ("orin.2=cuda/zeus", MeasuredDevice("orin.2", "cuda:0", "zeus")),
    ],
)
def test_a_device_is_named_with_what_its_node_calls_it(text, device):
    assert MeasuredDevice.parse(text) == device
    assert from_plain(MeasuredDevice, json.loads(json.dumps(to_plain(device))), "") == device


@pytest.mark.parametrize(
    "text", ["", "=cpu", "a b", "a/b", "a=", "a=tpu", "a=cpu/", "a=cpu:0", "x" * 65]
)
def test_what_names_no_device_is_refused(text):
    with pytest.raises(ValueError, match="measure_on|device must be"):
        MeasuredDevice.parse(text)


def test_a_search_keeps_its_devices_and_names_each_once():
    config = SearchConfig(task="digits", space=SPACE, trials=1, measure_on=DEVICES)
    kept = json.loads(json.dumps(config.to_dict()))
    assert SearchConfig.from_dict(kept) == config
    assert config.measured_device == "cpu"
    with pytest.raises(ValueError, match="measure_on must name each device once, got big, big"):
        replace(config, measure_on=DEVICES[:1] * 2)


def test_a_record_keeps_what_each_device_said(run):
    record = run.records()[0]
    again = json.loads(json.dumps(record.to_dict()))
    assert Trial.from_dict(again) == record
    for damaged in ({"readings": {"small": {"energy_j": 1}}}, {"unmeasured": {"small": 3}}):
        with pytest.raises(ValueError):
            data = record.to_dict()
            data["outcome"]["measurement"] |= damaged
            Trial.from_dict(data)


def test_a_run_that_names_no_device_has_one_front(tmp_path, capsys):
    made = make_run(tmp_path / "run")
    with pytest.raises(ValueError, match="device of run .* must be left out: the run names none"):
        made.on("big")
    assert main(["front", str(made.folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    check_schema(shown, "front")
    assert all(m["measured_on"] is None for m in shown["members"])


def test_each_device_has_a_front_of_its_own(run):
    big, small = run.on("big").front(), run.on("small").front()
    assert run.front() == big
    assert [m.measured_on for m in small] == ["small"] * len(small)
    assert {m.device for m in big} == {BIG} and {m.device for m in small} == {SMALL}
    # Once more by hand: nobody is better in quality and that device's joules.
    complete = {r.number: r for r in run.trials() if r.state == "complete"}
    points = {n: (r.quality, small_j(r.architecture)) for n, r in complete.items() if n != 3}
    best = {
        n
        for n, (quality, energy_j) in points.items()
        if not any(
            a >= quality and j <= energy_j and (a, j) != (quality, energy_j)
            for a, j in points.values()
        )
    }
    assert {m.trial for m in small} == best != {m.trial for m in big}
    # The search's budget is in joules of its first device.
    assert max(m.energy_j for m in big) <= 2e-4
    assert any(complete[m.trial].reading.energy_j > 2e-4 for m in small)


def test_a_trial_that_a_device_could_not_measure_is_missing_there_alone(run):
    seen = run.on("small").trials()[3]
    assert (seen.state, seen.reading) == ("failed", None)
    assert seen.reason == f"not measured on small: {LAUNCH}"
    assert run.trials()[3].state == "complete"
    account = summarise(run.on("small"))
    assert (account.complete, account.failed) == (19, 1)


def test_what_was_predicted_is_of_the_first_device_only(run):
    predicted = changed(run.records()[0], prediction=Estimate(1e-5, 1e-6, 1e-4, "predicted"))
    seen = predicted.on("small")
    assert seen.prediction is None


def test_a_device_that_a_run_was_not_measured_on_is_refused_in_one_line(run, capsys):
    for verb in ("front", "report"):
        assert main([verb, str(run.folder), "--device", "smal"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "must be one of big, small, got 'smal' (did you mean 'small'?)" in line


def test_every_form_of_a_front_names_the_device(run, capsys):
    def shown(*words):
        assert main(["front", str(run.folder), *words]) == 0
        return capsys.readouterr().out

    assert "on small (Small board)" in shown("--device", "small")
    assert "on big (Big board)" in shown()
    assert "energy per sample (small, fake)" in shown("--device", "small", "--markdown")
    head, row, *_ = shown("--device", "small", "--csv").splitlines()
    assert dict(zip(head.split(","), row.split(","), strict=True))["measured_on"] == "small"
    found = json.loads(shown("--device", "small", "--json"))
    check_schema(found, "front")
    assert {m["measured_on"] for m in found["members"]} == {"small"}


def test_a_run_is_compared_with_itself_on_two_devices(run, capsys):
    words = ["compare", str(run.folder), "--device", "big", "--device", "small"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    check_schema(found, "compare")
    assert [side["measured_on"] for side in found["runs"]] == ["big", "small"]
    assert f"joules are of different devices: {BIG} and {SMALL}" in found["notes"]
    fronts = [[m["trial"] for m in side["members"]] for side in found["runs"]]
    assert fronts == [[m.trial for m in run.on(name).front()] for name in ("big", "small")]
    assert main(words) == 0
    assert "on small (Small board)" in capsys.readouterr().out
    for wrong in (words[:2], words[:4], [*words, "--device", "big"]):
        assert main(wrong) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_page_says_whose_joules_it_shows(run, tmp_path, capsys):
    page = tmp_path / "small.html"
    words = ["report", str(run.folder), "--device", "small"]
    assert main([*words, "--to", str(page)]) == 0
    data = page_data(run.on("small"))
    assert data["texts"]["kicker"].endswith("on small (cuda:0)")
    assert [dict(rows)["device"] for rows in data["provenance"][:-1]] == [SMALL]
    assert SMALL in page.read_text()
    assert main([*words, "--watch"]) == 2
    assert "device must be left out with --watch" in capsys.readouterr().err


def test_replicas_pool_what_each_device_measured(run, tmp_path):
    record = run.records()[0]
    energy_j = 4 * small_j(record.architecture)
    other = replace(record.readings["small"], energy_j=energy_j, low_j=energy_j, high_j=energy_j)
    folder = replica_folder(tmp_path, 1)
    folder.mkdir()
    write_json(folder / RESULT, changed(record, replica=1, readings={"small": other}).to_dict())
    found = pooled(record, tmp_path)
    assert found.n_evaluations == 2
    # The geometric mean.
    assert found.readings["small"].energy_j == pytest.approx(2 * small_j(record.architecture))
    assert found.reading.energy_j == pytest.approx(record.reading.energy_j)


class FakeRay(SimpleNamespace):
    """Tasks that are functions; what is cancelled is remembered."""

    def __init__(self):
        super().__init__(exceptions=ray_measure.ray.exceptions, cancelled=[])

    def get(self, task):
        return task()

    def cancel(self, task):
        self.cancelled.append(task)


def device(name, task):
    return SimpleNamespace(name=name, start=lambda *_: task)


def fails(error):
    def task():
        raise error

    return task


def test_a_further_device_that_fails_costs_a_trial_nothing_but_that_reading(run, monkeypatch):
    monkeypatch.setattr(ray_measure, "ray", FakeRay())
    architecture = largest(SPACE)
    own = made_record(architecture, WORKLOAD, 1e-4)
    lost = ray_measure.ray.exceptions.WorkerCrashedError()
    task_error = ray_measure.ray.exceptions.RayTaskError
    refused = task_error("measure", "trace\n", ValueError("no kernel\nmore"))
    further = [
        device("a", lambda: made_record(architecture, WORKLOAD, 3e-4)),
        device("b", fails(refused)),
        device("c", fails(lost)),
    ]
    measure = Measurements(lambda *_: own, further)
    assert measure(architecture, WORKLOAD, None, None) is own
    candidate = changed(run.records()[0], readings={}, reading=own.reading, measure_energy_j=1.0)
    record = Trial(candidate.candidate, measure.added_to(candidate.outcome))
    assert record.readings["a"].energy_j == 3e-4 and record.readings.keys() == {"a"}
    assert record.unmeasured["b"] == "no kernel" and "worker died" in record.unmeasured["c"]
    # What measuring took on the device that could.
    assert record.measure_energy_j == 2.0
    assert Measurements(lambda *_: own).added_to(candidate.outcome) == candidate.outcome


def test_a_trial_that_its_first_device_cannot_measure_waits_for_no_other(monkeypatch):
    monkeypatch.setattr(ray_measure, "ray", FakeRay())
    waits = fails(AssertionError("is not waited for"))
    measure = Measurements(fails_at_once, [device("a", waits)])
    with pytest.raises(RuntimeError, match="sensor"):
        measure(None, None, None, None)
    assert ray_measure.ray.cancelled == [waits]


def fails_at_once(*_):
    raise RuntimeError("sensor lost")


def meeting(monkeypatch, nodes, answers):
    """Call ``find_named_meters`` on a cluster of ``nodes``, whose meters return ``answers``."""

    class Ray:
        def nodes(self):
            return [{"Alive": True, "Resources": resources} for resources in nodes]

        def remote(self, **options):
            assert options["num_cpus"] == 0 and set(options["resources"].values()) == {0.5}
            return lambda function: SimpleNamespace(remote=lambda *what: what)

        def get(self, tasks):
            return [answers[task] for task in tasks]

    monkeypatch.setattr(ray_roles, "ray", Ray())
    return ray_roles.find_named_meters(DEVICES, "cpu", "fake")


def test_devices_are_met_before_a_search_begins(monkeypatch):
    nodes = [
        {"joule_meter": 1.0, "joule_meter_big": 1.0, "CPU": 8.0},
        {"joule_meter": 1.0, "joule_meter_small": 1.0},
    ]
    found = tuple(MeterFound(d.name, d.device, "fake", "counter", BIG) for d in DEVICES)
    asked = [(d.name, d.device, "fake") for d in DEVICES]
    assert meeting(monkeypatch, nodes, dict(zip(asked, found, strict=True))) == found
    with pytest.raises(ClusterError, match="a node that measures on small: start it with ray st"):
        meeting(monkeypatch, nodes[:1], {})
    # A name without the role measures nothing.
    with pytest.raises(ClusterError, match='"joule_meter": 1, "joule_meter_big": 1'):
        meeting(monkeypatch, [{"joule_meter_big": 1.0}, nodes[1]], {})
    answers = {asked[0]: found[0], asked[1]: "NVML cannot start"}
    with pytest.raises(ClusterError, match="device small must be one that can .*: NVML cannot st"):
        meeting(monkeypatch, nodes, answers)
