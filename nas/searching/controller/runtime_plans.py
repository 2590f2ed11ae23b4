"""In which runtimes of a search a candidate is measured, by its predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from nas.core.estimate import Estimate
from nas.records.config import SearchConfig
from nas.records.runtime_plan import RuntimePlan, least_predicted
from search_spaces.architecture import Architecture
from search_spaces.runtimes.registry import get_runtime
from search_spaces.workload import Workload

# Returns the best quality on the front at fewer joules than a prediction.
ToBeat = Callable[[Estimate], float | None]


def runtime_plans(
    config: SearchConfig,
    workload: Workload,
    architecture: Architecture,
    predictions: Mapping[str, Estimate],
    quality_to_beat: ToBeat | None,
) -> tuple[RuntimePlan, ...]:
    """Return a plan for each of several runtimes, the fewest predicted joules first.

    ``predictions`` are the joules in each. ``quality_to_beat`` returns the best quality on the
    front at fewer joules; without it, as for a baseline, every runtime that holds the candidate
    measures it. A search with a limit or an objective of latency measures in all, because fewer
    joules may be slower. Without several runtimes there are no plans.
    """
    if len(config.runtimes) < 2:
        return ()
    is_required = quality_to_beat is None or config.goals.needs_latency
    plans = []
    for name in config.runtimes:
        prediction = predictions.get(name)
        refusal = refusal_of(config, workload, architecture, name)
        least_quality = None
        if prediction is not None and quality_to_beat is not None and not is_required:
            least_quality = quality_to_beat(prediction)
        plans.append(RuntimePlan(name, prediction, least_quality, is_required, refusal))

    def predicted_j(plan: RuntimePlan) -> float:
        return math.inf if plan.prediction is None else plan.prediction.mean

    return tuple(sorted(plans, key=lambda plan: (plan.refusal is not None, predicted_j(plan))))


def refusal_of(
    config: SearchConfig, workload: Workload, architecture: Architecture, name: str
) -> str | None:
    """Return why a candidate is not measured in the runtime ``name``, ``None`` if it may be."""
    choices = config.runtime_choices.get(name)
    if choices is not None:
        for placed in architecture.placed_blocks:
            compression = placed.spec.compression
            for choice in (compression.precision, compression.sparsity):
                if choice not in choices:
                    return f"not measured: {choice} ({placed.path}) is not real there"
    return get_runtime(name).refusal(architecture, workload, config.device)


def no_runtime(plans: Sequence[RuntimePlan]) -> str | None:
    """Return why no runtime holds the candidate; ``None`` if one does, or without plans."""
    if not plans or any(plan.refusal is None for plan in plans):
        return None
    reasons = "; ".join(f"{plan.name}: {plan.refusal}" for plan in plans)
    return f"no runtime of the search runs it: {reasons}"


def measure_above(
    plans: Sequence[RuntimePlan], energy_j: Estimate, quality_to_beat: ToBeat | None
) -> float | None:
    """Return the quality up to which a candidate is measured in no runtime, ``None`` for none.

    ``energy_j`` is its prediction in a search of one runtime.
    """
    if quality_to_beat is None:
        return None
    if not plans:
        return quality_to_beat(energy_j)
    least = [plan.measure_above for plan in plans if plan.refusal is None]
    named = [quality for quality in least if quality is not None]
    return min(named) if named and len(named) == len(least) else None


def least_prediction(plans: Sequence[RuntimePlan]) -> Estimate | None:
    """Return the fewest predicted joules of the runtimes that hold the candidate."""
    plan = least_predicted(plans)
    return None if plan is None else plan.prediction
