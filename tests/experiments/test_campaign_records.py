"""Records of a campaign: the report on them, and the check before they are used."""

import json
from dataclasses import replace

import pytest
from campaign_fakes import BRIEF, COSTS, SLICE_S, run_campaign
from fakes import FakeLab

from experiments import campaign_report
from experiments.campaign import __main__ as campaign
from experiments.campaign import planned
from predictors.campaign.pending import pending_items
from predictors.measurement.drift import correct_drift
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import append_records, read_records


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A whole campaign in slices on a fake board that drifts by a fifth, cut off in between."""
    folder = tmp_path_factory.mktemp("campaign")
    path = folder / "brief.jsonl"
    lab = FakeLab(BRIEF, drift=lambda s: 1 + 0.2 * s / 900)
    n_before = -1
    while (n := len(read_records(path).records) if path.exists() else 0) > n_before:
        n_before = n
        started_s = lab.clock()
        assert run_campaign(lab, "--n", "1", "--to", str(folder)) == 0
        assert round(lab.clock() - started_s, 3) <= SLICE_S
        if n_before == 0:
            # The first 8 minutes leave the references and many candidates.
            first = read_records(path).records
            assert len(first) >= 36 and sum(r.role == "reference" for r in first) >= 6
            # Killed in the middle of a line: what it held is measured once more.
            path.write_text(path.read_text()[:-99])
    assert lab.clock() - lab.start_s > 1.5 * SLICE_S
    plan = planned.make_plan("cuda:0", BRIEF, COSTS.seconds, n=1)
    assert not pending_items(plan, path)
    return path


def test_the_report_says_how_good_the_records_are(records, capsys, tmp_path):
    (found,) = campaign_report.report(read_records(records).records)
    plan = planned.make_plan("cuda:0", BRIEF, COSTS.seconds, n=1)
    assert found.n_architectures == len({(i.architecture, i.workload) for i in plan.items})
    assert found.tick_s == pytest.approx(0.1, rel=0.05)
    assert found.across_jobs < 0.01
    assert [d.is_applied for d in found.drift] == [True]
    assert set(found.tau_flops) <= {i.workload.key for i in plan.items}
    assert campaign_report.main([str(records), "--plot", str(tmp_path / "p.png")]) == 0
    out = capsys.readouterr().out
    assert "Fake GPU (nvml-total-energy)" in out and "applied" in out
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_figures_of_a_board_are_kept_beside_its_records(records, capsys):
    (found,) = json.loads((records.parent / "figures.json").read_text())
    assert found["n_references"] >= 6 and found["tick_s"] == pytest.approx(0.1, rel=0.05)
    # The board drifts by a fifth and more, which the reference shows.
    assert 0.02 < found["between_processes"] < 0.3
    assert campaign.main(["--check", str(records.parent)]) == 0
    assert "may be used" in capsys.readouterr().out


def test_records_that_lack_something_are_named(records, tmp_path, capsys):
    few = read_records(records).records[:3]
    odd = [
        replace(few[0], reading=replace(few[0].reading, is_estimate=True, host=None)),
        replace(few[1], session=""),
        few[2],
    ]
    append_records(tmp_path / "sent.jsonl", odd)
    assert campaign.main(["--check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    for word in ("estimate", "no host in 1 of 3", "no session in 1 of 3", "6 are needed"):
        assert word in out
    assert campaign.main(["--check", str(tmp_path), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)) == 1


def _reference_is_two_models(records):
    first = next(r for r in records if r.role == "candidate")
    return [
        replace(r, architecture=first.architecture) if r.role == "reference" and i % 2 else r
        for i, r in enumerate(records[:12])
    ]


def _mutated(**changes):
    return lambda records: [replace(records[0], **changes), *records[1:]]


@pytest.mark.parametrize(
    ("mutate", "word"),
    [
        (_mutated(repeats_j=(1.0,) * 6), "median of their windows in 1 of"),
        (_mutated(repeats_j=("a",) * 6), "median of their windows in 1 of"),
        (_mutated(repeats_j=()), "median of their windows in 1 of"),
        (_mutated(protocol=get_protocol("final").to_dict()), "hash of another in 1 of"),
        (_mutated(protocol={"name": "brief"}), "hash of another in 1 of"),
        (lambda records: [*records, records[0]], "1 records that are there already"),
        (_reference_is_two_models, "readings of one reference"),
        (lambda records: [replace(r, job="same") for r in records], "1 readings of one reference"),
    ],
)
def test_records_that_were_changed_are_named(records, tmp_path, capsys, mutate, word):
    whole = read_records(records).records
    append_records(tmp_path / "a.jsonl", mutate(list(whole)))
    assert campaign.main(["--check", str(tmp_path)]) == 1
    assert word in capsys.readouterr().out


def test_a_file_that_is_none_of_records_hides_no_other(records, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("hello\n")
    append_records(tmp_path / "b.jsonl", read_records(records).records)
    assert campaign.main(["--check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "a.jsonl line 1: no record" in out and "b.jsonl: may be used" in out


def test_estimates_are_called_so(records):
    raw = [
        replace(r, reading=replace(r.reading, is_estimate=True))
        for r in read_records(records).records
    ]
    assert "an estimate" in campaign_report.render(campaign_report.report(raw)[0])
    assert correct_drift(raw)[0][0].reading.is_estimate


@pytest.mark.parametrize("name", ["p.docx", "no/p.png"])
def test_a_plot_that_cannot_be_drawn_is_one_line(records, tmp_path, capsys, name):
    assert campaign_report.main([str(records), "--plot", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1


def test_a_wrong_file_is_one_line(tmp_path, capsys):
    (tmp_path / "r.jsonl").write_text("")
    for name in ("none.jsonl", "r.jsonl"):
        assert campaign_report.main([str(tmp_path / name)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
