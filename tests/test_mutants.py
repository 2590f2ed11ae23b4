"""Core logic with one line changed fails a test: the tests hold that line.

Each mutant is a fork that imports the project anew, with one source as changed, and runs the tests
that must fail. The same tests pass without a change.
"""

import importlib.machinery
import os
import sys

import pytest
from forking import Forked
from pages import ROOT

PACKAGES = ("nas", "predictors", "search_spaces", "experiments")
DOMINANCE = "nas/pareto/dominance.py"
UNCERTAINTY = "nas/pareto/uncertainty.py"
GATE = "nas/searching/gating/gate.py"
PRUNING = "nas/searching/gating/pruning.py"
SURROGATES = "nas/searching/gating/surrogates.py"
CALIBRATION = "predictors/energy/calibration.py"
REGRESSOR = "predictors/energy/regressor.py"
ESTIMATE = "nas/core/estimate.py"
SLICES = "predictors/campaign/slices.py"
PLAN = "predictors/campaign/plan.py"
PROBING = "search_spaces/compression/probing.py"

MASK = "nas/analysis/test_pareto.py::test_which_rows_are_dominated_by_hand"
CHANCE = "nas/searching/test_gate.py::test_it_is_the_share_of_draws_that_nothing_dominates"
OF_FRONT = "nas/analysis/test_front_probability.py"
OF_GATE = "nas/searching/test_gate.py"
OF_INTERVALS = "predictors/test_learners.py"
OF_SLICES = "predictors/test_slices.py"
OF_PLANS = "predictors/test_plans.py"
KEY = f"{OF_PLANS}::test_the_key_of_an_item_changes_with_all_that_its_record_depends_on"

# Source, a part of one line of it, what stands there instead, and the tests that must fail.
MUTANTS = [
    (
        DOMINANCE,
        "np.all(rivals <= losses[row], axis=1)",
        "np.all(rivals < losses[row], axis=1)",
        MASK,
    ),
    (
        DOMINANCE,
        "np.any(rivals < losses[row], axis=1)",
        "np.any(rivals <= losses[row], axis=1)",
        MASK,
    ),
    (DOMINANCE, "mask[order] = second < best_before", "mask[order] = second <= best_before", MASK),
    (DOMINANCE, " & (second == group_best)", "", MASK),
    (DOMINANCE, "dtype=bool), -array, array)", "dtype=bool), array, -array)", MASK),
    (UNCERTAINTY, "self._mean - mean_N2[:, None]", "mean_N2[:, None] - self._mean", CHANCE),
    (UNCERTAINTY, "below[:, 0] + (share", "(share", CHANCE),
    (UNCERTAINTY, "self._variance + sd_N2", "sd_N2", OF_FRONT),
    (UNCERTAINTY, "np.sqrt(weight) * noise", "weight * noise", OF_FRONT),
    (UNCERTAINTY, "_FAR = 5.0", "_FAR = 0.5", OF_FRONT),
    (UNCERTAINTY, "losses[rows] + noise * spread[rows]", "losses[rows] + noise", OF_FRONT),
    (
        GATE,
        "if probability >= 1 - self._config.confidence",
        "if probability >= self._config.confidence",
        f"{OF_GATE}::test_a_candidate_is_dropped_exactly_where_its_chance_is_below_what_is_allowed",
    ),
    (
        GATE,
        "low_j = float(energy_j.low[0])",
        "low_j = float(energy_j.mean[0])",
        f"{OF_GATE}::test_only_the_optimistic_end_of_joules_is_held_to_a_budget",
    ),
    (
        GATE,
        "self._config.startup_trials - self.surrogates.n_complete",
        "self._config.startup_trials - self.surrogates.n_complete + 1",
        f"{OF_GATE}::test_it_decides_from_its_last_startup_trial_on",
    ),
    (
        PRUNING,
        " if verdict != Verdict.KEPT]",
        "]",
        "nas/searching/test_pruning.py::test_audits_are_drawn_from_all_that_is_pruned",
    ),
    (
        GATE,
        'r.state == "complete" and r.finalist_of is None',
        'r.state == "complete"',
        f"{OF_GATE}::test_a_finalist_neither_is_audited_nor_makes_a_drop_right",
    ),
    (
        GATE,
        "pool_mean + true_deviations(pool_label_sd, noise)",
        "pool_mean",
        f"{OF_GATE}::test_members_of_the_pool_count_one_deviation_worse_than_predicted",
    ),
    (
        SURROGATES,
        "self._fits_s <= self._fit_share",
        "self._fits_s >= self._fit_share",
        f"{OF_GATE}::test_fitting_takes_at_most_its_share_of_the_time",
    ),
    (
        CALIBRATION,
        "confidence * (1 + 1 / self.n_effective)",
        "confidence",
        f"{OF_INTERVALS}::test_conformal_half_widths_are_order_statistics",
    ),
    (
        CALIBRATION,
        "max(normal, _BEYOND",
        "min(normal, _BEYOND",
        f"{OF_INTERVALS}::test_too_few_rows_widen_beyond_the_largest_error_seen",
    ),
    (
        CALIBRATION,
        "min(max(correlation, 0.0), 1.0)",
        "0.0",
        f"{OF_INTERVALS}::test_rows_of_a_job_that_errs_as_one_count_as_one",
    ),
    (
        REGRESSOR,
        "np.where(outside, (2 + excess) * width, width)",
        "width",
        f"{OF_INTERVALS}::test_outside_the_range_is_flagged_and_widened_with_distance",
    ),
    (
        ESTIMATE,
        "self.low <= self.mean <= self.high",
        "self.low <= self.high",
        "nas/core/test_estimate.py",
    ),
    (
        ESTIMATE,
        "self.low <= value <= self.high",
        "self.low < value < self.high",
        "nas/core/test_estimate.py",
    ),
    (
        SLICES,
        "_MOST_SHARE, _MOST_TIMES = 1 / 4, 2.0",
        "_MOST_SHARE, _MOST_TIMES = 1 / 2, 2.0",
        f"{OF_SLICES}::test_an_item_may_take_a_quarter_of_what_is_left_or_twice_what_is_expected",
    ),
    (
        SLICES,
        "self._since_reference >= self._block_size()",
        "self._since_reference > self._block_size()",
        f"{OF_SLICES}::test_references_are_twice_as_many_until_the_plan_has_its_first",
    ),
    (PLAN, "            item.repeat,\n", "", KEY),
    (PLAN, "            self.protocol.hash,\n", "", KEY),
    (PLAN, "place_of(self.device, item.runtime)", "self.device", KEY),
    (
        PROBING,
        "device_name(device), versions(device)]",
        "device_name(device)]",
        "search_spaces/test_realness.py::test_a_probe_is_cached_for_one_device_and_its_versions_alone",
    ),
]


def run_tests(tests, path=None, before="", after=""):
    """Run ``tests`` in this process, whose modules of the project are imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    if path is not None:
        _mutate(ROOT / path, before, after)
    options = ["-q", "-x", "-n", "0", "--dist", "no", "-p", "no:cacheprovider", "--tb=line"]
    sys.exit(int(pytest.main([*options, *(f"tests/{test}" for test in tests)])))


def _mutate(path, before, after):
    source = path.read_text()
    assert source.count(before) == 1, f"{path} must have {before!r} once"
    mutant = compile(source.replace(before, after), str(path), "exec")
    get_code = importlib.machinery.SourceFileLoader.get_code

    def code_of(loader, fullname):
        is_mutant = os.path.samefile(loader.path, path)
        return mutant if is_mutant else get_code(loader, fullname)

    importlib.machinery.SourceFileLoader.get_code = code_of


def result_of(*arguments):
    """Exit code of pytest, and its output."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    with Forked(run_tests, *arguments, cwd=ROOT, env=kept) as process:
        out, errors = process.communicate(timeout=280)
    return process.returncode, out + errors


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("path", "before", "after", "test"), MUTANTS, ids=[f"{m[0]}: {m[1].strip()}" for m in MUTANTS]
)
def test_every_mutant_dies(path, before, after, test):
    code, said = result_of([test], path, before, after)
    assert code == pytest.ExitCode.TESTS_FAILED, said


@pytest.mark.thorough
def test_without_a_change_the_same_tests_pass():
    code, said = result_of(sorted({mutant[3] for mutant in MUTANTS}))
    assert code == pytest.ExitCode.OK, said
