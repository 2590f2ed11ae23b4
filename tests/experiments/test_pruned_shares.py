"""The shares that ended searches pruned, from their run folders."""

import json

import pytest
from run_fakes import make_run

from experiments.benchmarks.sampling.pruned_shares import main


def test_a_row_has_the_counts_of_a_run(tmp_path, capsys):
    run = make_run(tmp_path / "digits", trials=6)
    counts = {"considered": 200, "over_limit": 20, "dominated": 30}
    (tmp_path / "digits" / "pruning.json").write_text(json.dumps(counts))
    assert main([str(tmp_path / "digits")]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("digits"))
    assert row.split()[1] == str(len(run.trials()))
    assert " 200 " in row and " 25% " in row and " 30 " in row and " 20 " in row


def test_a_run_that_considered_nothing_is_one_line(tmp_path, capsys):
    make_run(tmp_path / "digits", trials=3)
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path / "digits")])
    assert exit_.value.code == 2
    assert "digits must be an ended search with the sampler ehvi" in capsys.readouterr().err
