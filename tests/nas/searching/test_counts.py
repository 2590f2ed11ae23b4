"""Counts kept up record by record against counting all of them."""

import numpy as np
import pytest
from search_fakes import SPACE, changed, finished, make_trial

from nas.records.goals import Goals
from nas.records.trial import judged
from nas.searching.controller.counts import Counts
from search_spaces.space.sampling import sample


@pytest.mark.parametrize("goals", [Goals(), Goals(max_joules=2e-6), Goals(("params",))])
@pytest.mark.parametrize("weights", ["own", "inherited"])
def test_counts_are_what_counting_again_would_say(goals, weights):
    rng = np.random.default_rng(3)
    counts, records = Counts(goals), {}
    for number in range(60):
        state = str(
            rng.choice(["complete", "dropped", "failed", "running"], p=[0.7, 0.1, 0.1, 0.1])
        )
        begun = make_trial(number, "running", sample(SPACE, rng), weights=weights)
        if number > 40 and weights == "inherited":
            begun = changed(begun, weights="own", finalist_of=number - 41)
        steps = [begun] if state != "dropped" else []
        if state == "complete":
            steps.append(finished(begun))
        elif state != "running":
            steps.append(changed(begun, state=state, reason="because"))
        for record in steps:
            counts.put(record, records.get(number))
            records[number] = record
        known = list(records.values())
        kept = [r.objectives for r in judged(known) if goals.meets_limits(r)]
        assert [r.number for r in counts.front] == [r.number for r in goals.front(known)]
        assert counts.best_quality == max((a for a, _ in kept), default=None)
        assert counts.least_energy_j == min((e for _, e in kept), default=None)
        searched = [r for r in known if r.finalist_of is None]
        assert counts.n_trained == sum(r.state != "dropped" for r in searched)
        assert counts.n_running_searched == sum(r.state == "running" for r in searched)
        assert counts.n_finalists == len(known) - len(searched)
        assert counts.spent_energy_j == 6.0 * sum(r.state == "complete" for r in known)
        for name in ("complete", "dropped", "failed", "running", "stopped"):
            assert counts.count(name) == sum(r.state == name for r in known)
