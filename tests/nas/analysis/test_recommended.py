"""What a front recommends, its knee, and what a form can hold, by the command line."""

import json
from dataclasses import replace

import pytest
from run_fakes import check_schema, make_run
from search_fakes import SPACE, changed, drive, finished, make_session, reading

from nas.cli.main import main
from nas.core.units import format_bytes, format_joules, format_milliseconds
from nas.exporting.formats.registry import exportable_front
from nas.records.config import SearchConfig
from nas.records.goals import Goals
from nas.store import new_run, run_file
from nas.tasks.base.metric import BITS_PER_BYTE


def said(capsys, *words):
    code = main(list(map(str, words)))
    return code, *capsys.readouterr()


def members_of(capsys, *words):
    code, out, err = said(capsys, "front", *words, "--json")
    assert code == 0, err
    data = json.loads(out)
    check_schema(data, "front")
    return data["members"]


def judged_by(figures):
    """A judge that gives trials these qualities and joules, by number."""

    def judge(candidate):
        quality, energy_j = figures[candidate.number % len(figures)]
        return changed(
            finished(candidate), quality=quality, quality_se=0.01, reading=reading(energy_j)
        )

    return judge


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("recommended") / "run", trials=16)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A front with three members, convex in joules: it has no knee."""
    figures = [(0.70, 1e-6), (0.71, 1.1e-6), (0.9, 8e-6)]
    folder = tmp_path_factory.mktemp("convex") / "run"
    return make_run(folder, trials=3, judge=judged_by(figures))


def test_the_recommended_member_is_the_cheapest_near_the_best(run, capsys):
    everybody = members_of(capsys, run.folder)
    (shown,) = members_of(capsys, run.folder, "--recommended")
    best = max(everybody, key=lambda m: m["quality"])
    near = [m for m in everybody if m["quality"] >= best["quality"] - best["quality_se"]]
    assert shown == min(near, key=lambda m: m["energy_j"])
    assert run.front().recommended().trial == shown["trial"]


def test_it_is_chosen_among_what_other_options_leave(run, capsys):
    everybody = members_of(capsys, run.folder)
    budget = everybody[len(everybody) // 2]["energy_j"]
    left = [m for m in everybody if m["energy_j"] <= budget]
    best = left[-1]
    near = [m for m in left if m["quality"] >= best["quality"] - best["quality_se"]]
    (shown,) = members_of(capsys, run.folder, "--recommended", "--max-joules", budget)
    assert shown == near[0]


def test_a_front_without_a_knee_says_so(plain, capsys, tmp_path):
    assert len(plain.front()) == 3 and plain.front().knee() is None
    for words in (["front", plain.folder], ["export", plain.folder, "--to", tmp_path / "a"]):
        code, out, err = said(capsys, *words, "--knee")
        assert (code, out) == (2, "") and len(err.splitlines()) == 1
        assert "has no knee" in err and "--recommended" in err
        code, out, err = said(capsys, *words, "--knee", "--json")
        assert code == 2 and "has no knee" in json.loads(out)["error"]["message"]
    assert list(tmp_path.iterdir()) == []
    # Nor does a front of two members, which a budget leaves of it.
    assert said(capsys, "front", plain.folder, "--knee", "--max-joules", "2uJ")[0] == 2
    # The default is none of the knee's.
    assert members_of(capsys, plain.folder, "--recommended")[0]["quality"] == 0.9


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["front", "--knee", "--recommended"], "not allowed with argument"),
        (["front", "--top", "2", "--recommended"], "top must be left out with --recommended"),
        (["export", "--trial", "0", "--recommended", "--to", "x"], "--trial names one member"),
        (["export", "--trial", "0", "--exportable", "onnx", "--to", "x"], "--trial names one"),
        (["front", "--exportable", "onxx"], "exportable must be one of safetensors, pt2, onnx"),
        (["front", "--min-quality", "84"], "min_quality must be a share"),
        (["front", "--max-latency-ms", "3 parsec"], "max_latency_ms must be a number > 0"),
        (["front", "--max-memory", "0MB"], "max_memory must be a number > 0"),
        (["front", "--max-params", "1.5"], "--max-params: invalid int value"),
    ],
)
def test_what_does_not_fit_is_one_line(run, words, error, capsys):
    verb, *options = words
    try:
        code = main([verb, str(run.folder), *options])
    except SystemExit as ended:
        code = ended.code
    err = capsys.readouterr().err
    assert code == 2 and error in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("more", [[], ["--recommended"], ["--knee"], ["--json"], ["--top", "2"]])
def test_constraints_that_no_trial_satisfies_are_one_line(run, more, capsys):
    few, many = min(m.params for m in run.front()), max(m.params for m in run.front())
    code, out, err = said(capsys, "front", run.folder, "--max-params", "1", *more)
    assert code == 2 and len(err.splitlines()) == 1
    assert "no complete trial satisfies max_params 1" in err
    assert f"the front has {few:,} to {many:,} parameters" in err
    assert ("error" in json.loads(out)) if "--json" in more else out == ""


def test_a_front_without_a_member_recommends_none(tmp_path, capsys):
    empty = make_run(tmp_path / "run", trials=2, max_params=1)
    code, out, _ = said(capsys, "front", empty.folder)
    assert code == 0 and out.startswith("no front yet: no complete trial satisfies")
    for option in ("--recommended", "--knee"):
        code, out, err = said(capsys, "front", empty.folder, option)
        assert code == 2 and out == "" and len(err.splitlines()) == 1
        assert "no trial is complete that satisfies every constraint" in err


def test_export_takes_the_recommended_member_by_default(run, capsys, tmp_path):
    chosen = run.front().recommended().trial
    for options in ([], ["--recommended"]):
        code, _, err = said(capsys, "export", run.folder, "--to", tmp_path / "a", *options)
        # The run is made up and has no weights.
        assert code == 2 and f"weights of trial {chosen} must be at" in err
        assert f"exporting trial {chosen}, recommended" in err


def test_the_search_ends_by_naming_it(run, capsys, monkeypatch, tmp_path):
    from nas.cli.commands.search import report

    monkeypatch.chdir(tmp_path)
    weights = run.weights_path(run.front().recommended().trial)
    weights.parent.mkdir(parents=True, exist_ok=True)
    for has_weights in (True, False):
        # Without weights there is nothing to export.
        weights.touch() if has_weights else weights.unlink()
        report(run, as_json=False)
        last = capsys.readouterr().out.splitlines()[-1]
        assert f"nas front {run.folder} --recommended" in last and "--knee" not in last
        assert (f"nas export {run.folder} --to model" in last) is has_weights


def test_the_probability_of_being_pareto_optimal_is_named_so(run, capsys):
    member = run.front().recommended()
    head, *rest = said(capsys, "front", run.folder)[1].splitlines()
    assert "P(Pareto)" in head and any(line.startswith("P(Pareto): ") for line in rest)
    row = next(line for line in rest if line.split()[:1] == [str(member.trial)])
    share = f"{member.front_probability:.0%}"
    assert row[: head.index("P(Pareto)") + len("P(Pareto)")].endswith(f" {share}")
    explained = said(capsys, "explain", run.folder, str(member.trial))[1]
    assert f"  P(Pareto)  {share}, " in explained


def test_what_tables_print_can_be_typed_back(run, capsys):
    member = run.front().members[len(run.front()) // 2]
    everybody = len(run.front())
    # A little more than printed, since tables round.
    typed = {
        "--max-joules": format_joules(member.energy_j * 1.01),
        "--max-latency-ms": format_milliseconds(member.latency_s * 1.01),
        "--max-memory": format_bytes(member.peak_memory_bytes * 1.01),
        "--max-params": f"{member.params:,}",
        "--min-quality": run.metric.text(member.quality - 1e-4),
    }
    for option, text in typed.items():
        found = members_of(capsys, run.folder, option, text)
        assert member.trial in [m["trial"] for m in found], option
        spaced = members_of(capsys, run.folder, option, text.replace(" ", ""))
        assert spaced == found and 0 < len(found) <= everybody
    micro = typed["--max-joules"]
    assert micro.endswith("µJ")
    for other in (micro.replace("µ", "μ"), micro.replace("µ", "u")):
        assert members_of(capsys, run.folder, "--max-joules", other) == members_of(
            capsys, run.folder, "--max-joules", micro
        )


def test_python_takes_the_same_texts(run):
    member = run.front().members[1]
    limits = Goals(
        max_joules=format_joules(member.energy_j * 1.01),
        max_latency_s="12.3 ms",
        max_memory_bytes="64 MB",
        max_params=f"{member.params:,}",
    )
    assert limits.max_latency_s == pytest.approx(12.3e-3) and limits.max_params == member.params
    assert member.trial in [m.trial for m in run.front(limits)]
    config = SearchConfig(task="digits", space=SPACE, trials=2, max_joules="100 µJ")
    assert config.max_joules == config.goals.max_joules == 1e-4
    assert SearchConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="max_joules must be a number > 0 in J"):
        SearchConfig(task="digits", space=SPACE, trials=2, max_joules="much")


def test_bits_are_read_where_tables_print_bits(run, capsys):
    from nas.store.run_file import go_on, load

    go_on(replace(run, metric=BITS_PER_BYTE))
    try:
        found = load(run.folder)
        member = found.front().members[1]
        text = BITS_PER_BYTE.text(member.quality * 0.999)
        for typed in (text, f"{text} bits", f"{text} bits per byte"):
            kept = members_of(capsys, run.folder, "--min-quality", typed)
            assert member.trial == kept[0]["trial"]
            assert found.front().best(min_quality=typed).trial == member.trial
        assert said(capsys, "front", run.folder, "--min-quality", "84%")[0] == 2
    finally:
        go_on(run)


def searched(folder, space, trials, judge):
    """A run in another space than that of the fakes."""
    changes = {"sampler": "random", "space": space, "trials": trials}
    new_run.create(folder, SearchConfig(task="digits", **changes), "fake")
    drive(make_session(folder, **changes), judge)
    return run_file.load(folder)


def test_the_front_of_what_a_form_can_hold(tmp_path, capsys):
    space = type(SPACE).from_dict(
        SPACE.to_dict() | {"name": "mixed", "ffn_precision": ["fp32", "int8"]}
    )

    def judge(candidate):
        # What is int8 takes half the joules, so that it dominates its like.
        record = finished(candidate)
        is_int8 = any(b.compression.precision == "int8" for b in candidate.architecture.blocks)
        energy_j = record.energy_j * (0.5 if is_int8 else 1)
        return changed(record, reading=reading(energy_j))

    folder = tmp_path / "run"
    run = searched(folder, space, 14, judge)
    int8 = {
        r.number
        for r in run.trials()
        if any(b.compression.precision == "int8" for b in r.architecture.blocks)
    }
    assert int8 & {m.trial for m in run.front()}
    found = members_of(capsys, folder, "--exportable", "onnx")
    assert found and not int8 & {m["trial"] for m in found}
    # Of what is left it is a front: the best of the trials that the form can hold.
    free = [r for r in run.trials() if r.number not in int8]
    assert max(r.quality for r in free) == max(m["quality"] for m in found)
    assert exportable_front(run, ["onnx"]).excluded == {"ffn_precision int8": tuple(sorted(int8))}
    _, out, _ = said(capsys, "front", folder, "--exportable", "onnx")
    assert f"{len(int8)} complete trials are not supported by onnx: ffn_precision int8 (" in out
    chosen = exportable_front(run, ["onnx"]).front.recommended().trial
    words = ["export", folder, "--exportable", "onnx", "--to", tmp_path / "a"]
    code, _, err = said(capsys, *words)
    assert code == 2 and f"exporting trial {chosen}, recommended" in err
    assert "are not supported by onnx" in err and "add --format onnx" in err
    budget = found[0]["energy_j"] * 1.001
    (cheap,) = members_of(
        capsys, folder, "--exportable", "onnx,python", "--recommended", "--max-joules", budget
    )
    assert cheap["trial"] == found[0]["trial"]
    assert len(members_of(capsys, folder, "--exportable", "onnx-int8")) == len(run.front())
    only = type(SPACE).from_dict(SPACE.to_dict() | {"name": "int8", "ffn_precision": ["int8"]})
    none = searched(tmp_path / "none", only, 2, finished)
    code, _, err = said(capsys, "front", none.folder, "--exportable", "onnx")
    assert code == 2 and "so that none is left" in err and len(err.splitlines()) == 1
