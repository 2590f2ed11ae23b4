"""What went wrong while joules were read, and their limits, wherever joules are shown."""

import csv
import io
import json
from dataclasses import replace

import pytest
from export_fakes import made_run
from record_fakes import DIGITS, made_record, made_records
from run_fakes import check_schema, make_run
from search_fakes import SPACE, changed, finished

from nas.cli.main import main
from nas.core.plain import from_plain, to_plain
from nas.exporting.card import make_card
from nas.exporting.readme import render_formats, render_readme
from nas.exporting.verify import Verification
from nas.records.replicas import pooled
from nas.records.trial import Trial
from nas.reporting.data import page_data
from nas.reporting.page import render_page
from nas.searching.gating.prior_run import Conditions
from predictors.energy.evaluation import by_device
from predictors.measurement.drift import correct_drift
from predictors.measurement.records import append_records
from predictors.meters.board import Board
from search_spaces.space.sampling import smallest

FULL, CAPPED = Board("GPU-7", power_limit_w=700.0), Board("GPU-7", power_limit_w=350.0)
FLAGS = ("foreign_process", "processes_unseen", "thermal_throttle")


def judged(**changes):
    """Finishes candidates with a reading that is changed so."""

    def judge(candidate):
        record = finished(candidate)
        return changed(record, reading=replace(record.reading, **changes))

    return judge


@pytest.fixture(scope="module")
def flagged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flagged") / "run"
    judge = judged(flags=FLAGS, converged=False, board=CAPPED, host="secret-host")
    return make_run(folder, trials=6, judge=judge)


def test_the_front_says_it_in_every_form(flagged, capsys):
    run = f"front {flagged.folder}"
    assert main(run.split()) == 0
    shown = capsys.readouterr().out
    for flag in (*FLAGS, "not_converged"):
        assert shown.count(flag) > 1, flag
    assert "another process was on the device" in shown and "cannot be seen" in shown
    assert "limits of the board: 350 W" in shown
    assert main([*run.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    check_schema(found, "front")
    for member in found["members"]:
        assert member["flags"] == [*FLAGS, "not_converged"]
        assert (member["limits"], member["power_limit_w"]) == ("350 W", 350.0)
    assert main([*run.split(), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["flags"] for row in rows} == {" ".join((*FLAGS, "not_converged"))}
    assert main([*run.split(), "--markdown"]) == 0
    assert "foreign_process" in capsys.readouterr().out


def test_a_trial_says_it_when_it_is_explained(flagged, capsys):
    number = flagged.trials()[0].number
    assert main(f"explain {flagged.folder} {number}".split()) == 0
    shown = capsys.readouterr().out
    assert "foreign_process: another process was on the device" in shown
    assert "limited to 350 W" in shown and "not_converged" in shown
    assert main(f"explain {flagged.folder} {number} --json".split()) == 0
    found = json.loads(capsys.readouterr().out)
    check_schema(found, "explain")
    assert found["flags"] == [*FLAGS, "not_converged"] and found["limits"] == "350 W"


def test_the_page_says_it_and_names_no_host(flagged):
    data = page_data(flagged)
    for trial in data["trials"]:
        card = dict(trial["card"])
        flags = [text.partition(": ")[::2] for name, text in trial["card"] if name == "flag"]
        assert [flag for flag, _ in flags] == [*FLAGS, "not_converged"]
        assert all(text not in ("", flag) for flag, text in flags)
        assert card["board's limits"] == "350 W"
    way, _ = map(dict, data["provenance"])
    assert way["board"] == "GPU-7" and way["board's limits"] == "350 W"
    n = len(data["trials"])
    assert way["flags"].startswith(f"{n} of {n} trials")
    page = render_page(data)
    assert "another process was on the device" in page and "secret-host" not in page


def test_a_clean_front_says_nothing_of_flags(tmp_path, capsys):
    run = make_run(tmp_path / "run", trials=4)
    assert main(f"front {run.folder}".split()) == 0
    shown = capsys.readouterr().out
    assert "flags" not in shown and "limits" not in shown


def test_a_front_whose_limits_changed_shows_both_and_says_that_they_do_not_compare(
    tmp_path, capsys
):
    def judge(candidate):
        board = FULL if candidate.number % 2 else CAPPED
        return judged(board=board)(candidate)

    run = make_run(tmp_path / "run", trials=14, judge=judge)
    members = run.front()
    assert {m.limits for m in members} == {"350 W", "700 W"}
    assert main(f"front {run.folder}".split()) == 0
    shown = capsys.readouterr().out
    assert "limits of the board changed" in shown and "under 350 W and under 700 W" in shown
    # Each member's and, in the note, both.
    assert shown.count("350 W") + shown.count("700 W") == len(members) + 2


def test_cards_say_it_and_name_no_host(tmp_path):
    run = made_run(tmp_path / "run", smallest(SPACE))
    record = run.trial(0)
    reading = replace(
        record.reading, flags=FLAGS, converged=False, board=CAPPED, host="secret-host"
    )
    record = changed(record, reading=reading)
    after = replace(reading, flags=("still_warming",), converged=True, board=FULL, host=None)
    card = make_card(run, record, Verification(0, 0, 1, 1, 0, 1, 1, after))
    assert card["searched"]["reading"]["flags"] == list(FLAGS)
    assert card["searched"]["reading"]["board"]["power_limit_w"] == 350.0
    text = render_readme(card)
    assert "the device was still warming up (still_warming)" in text
    assert "In the search: Flags of these joules: " in text and "(foreign_process)" in text
    assert "limited to 700 W" in text and "limited to 350 W" in text and "(not_converged)" in text
    assert "secret-host" not in json.dumps(card) + text
    form = {
        "title": "t",
        "files": {"a": 1},
        "inputs": [1],
        "verified": {
            "reading": after.to_dict(),
            "validation_quality": 0.5,
            "test_quality": 0.5,
            "test_quality_se": 0.1,
            "output_tolerance": 1.0,
            "output_difference": 0.0,
            "runtime": "r",
            "mode": "m",
        },
    }
    assert "(still_warming)" in render_formats(card | {"formats": {"torch": form}})
    clean = replace(after, flags=(), board=None)
    record = changed(record, reading=clean)
    card = make_card(run, record, Verification(0, 0, 1, 1, 0, 1, 1, clean))
    assert "lags" not in render_readme(card)


def test_a_trial_keeps_its_flags_and_its_board_on_disk(flagged):
    for record in flagged.trials():
        again = Trial.from_dict(json.loads(json.dumps(record.to_dict())))
        assert again == record and again.reading.board == CAPPED


def test_repeats_under_other_limits_are_no_part_of_a_mean(tmp_path):
    run = make_run(tmp_path / "run", trials=1, judge=judged(board=FULL))
    record = run.trials()[0]
    for k, (board, factor) in enumerate([(FULL, 1.1), (CAPPED, 0.5)], start=1):
        reading = record.reading
        other = replace(
            reading,
            energy_j=reading.energy_j * factor,
            low_j=reading.low_j * factor,
            high_j=reading.high_j * factor,
            board=board,
            flags=("still_warming",),
        )
        folder = tmp_path / "trial" / f"replica-{k}"
        folder.mkdir(parents=True)
        replica = changed(record, replica=k, reading=other)
        (folder / "result.json").write_text(json.dumps(replica.to_dict()))
    mean = pooled(record, tmp_path / "trial").reading
    assert mean.energy_j == pytest.approx(record.reading.energy_j * 1.1**0.5)
    assert mean.flags == ("boards_differ", "still_warming") and mean.board == FULL


def test_earlier_joules_under_other_limits_are_of_another_situation():
    readings = [
        made_record(smallest(SPACE), DIGITS, 1.0, board=board).reading for board in (FULL, CAPPED)
    ]
    here, there = (Conditions.of(reading, DIGITS) for reading in readings)
    assert here != there and "limits '350 W', here '700 W'" in here.differences(there)
    assert from_plain(Conditions, json.loads(json.dumps(to_plain(there))), "conditions") == there


@pytest.fixture
def two_limits(tmp_path):
    """Thirty models under 700 W, and the first twelve under 350 W at 0.9 of the joules."""
    records = [
        replace(r, reading=replace(r.reading, board=FULL)) for r in made_records(30, n_sessions=1)
    ]
    capped = []
    for record in records[:12]:
        reading = replace(
            record.reading,
            board=CAPPED,
            energy_j=record.reading.energy_j * 0.9,
            low_j=record.reading.low_j * 0.9,
            high_j=record.reading.high_j * 0.9,
            latency_s=record.reading.latency_s * 1.5,
        )
        capped.append(replace(record, reading=reading, session="capped"))
    append_records(tmp_path / "r.jsonl", [*records, *capped])
    return tmp_path / "r.jsonl"


def test_evaluate_keeps_limits_apart_and_shows_them_side_by_side(two_limits, capsys):
    assert main(f"predictor evaluate {two_limits} --quiet".split()) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "700 W)" in shown and "350 W)" in shown
    assert "30 architectures, 30 records" in shown and "12 architectures, 12 records" in shown
    assert "12 models were measured on Fake under both 700 W and 350 W" in shown
    assert "0.900x the joules" in shown and "1.500x the time" in shown
    assert main(f"predictor evaluate {two_limits} --quiet --json".split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert [d["limits"] for d in found["devices"]] == ["700 W", "350 W"]
    assert found["limits_compared"][0]["ratio"]["mean"] == pytest.approx(0.9)


def test_a_predictor_is_fitted_to_one_limit(two_limits, tmp_path, capsys):
    code = main(["predictor", "fit", str(two_limits), "--to", str(tmp_path / "p.safetensors")])
    assert code == 2
    assert "limits of the board, got 350 W and 700 W" in capsys.readouterr().err
    assert not (tmp_path / "p.safetensors").exists()


def test_references_under_other_limits_correct_nothing_here():
    architectures = [r.architecture for r in made_records(4)]
    records = []
    for session, board, level in (("a", FULL, 1.0), ("b", CAPPED, 0.6)):
        for order in range(5):
            records.append(
                made_record(
                    architectures[0 if order % 2 == 0 else order],
                    DIGITS,
                    level * (1.0 if order % 2 == 0 else 2.0),
                    role="reference" if order % 2 == 0 else "candidate",
                    session=session,
                    order=order,
                    board=board,
                )
            )
    corrected, reports = correct_drift(records)
    assert {report.limits for report in reports} == {"700 W", "350 W"}
    assert not any(report.is_applied for report in reports)
    assert {r.reading.energy_j for r in corrected} == {2.0, 1.2}
    assert len(by_device(corrected)) == 2


def test_a_model_measured_under_two_limits_is_shown_under_both():
    from nas.cli.output.measure_report import render_records, under_other_limits

    architecture = smallest(SPACE)
    full = made_record(architecture, DIGITS, 2e-6, board=FULL, flags=("processes_unseen",))
    capped = made_record(architecture, DIGITS, 1e-6, board=CAPPED)
    other = made_record(made_records(2)[1].architecture, DIGITS, 3e-6, board=CAPPED)
    assert under_other_limits([full], [full, capped, other]) == [capped]
    shown = render_records([full, capped])
    assert "700 W" in shown and "350 W" in shown and "limits" in shown
    assert "processes_unseen: other processes on the device cannot be seen" in shown
    assert "limited to 700 W" in render_records([full])
