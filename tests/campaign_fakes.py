"""The campaign's command on a fake board."""

from types import SimpleNamespace

import pytest

from experiments.campaign import __main__ as campaign
from experiments.campaign import command, steps
from predictors.campaign.costs import ItemCosts
from predictors.campaign.plan import PlanItem
from predictors.measurement.protocol import get_protocol

SLICE_S = 480.0
BRIEF = get_protocol("brief")
COSTS = ItemCosts()


def run_campaign(lab, *arguments, quiet=True):
    """The command as a user gives it, on a fake board in place of the device and its processes."""
    meter = SimpleNamespace(
        name="nvml", source="nvml-total-energy", device="Fake GPU", close=lambda: None
    )

    def measure(architecture, workload, *, timeout_s, **others):
        return lab(PlanItem(architecture, workload), timeout_s)

    clock = SimpleNamespace(monotonic=lab.clock)
    with pytest.MonkeyPatch.context() as patch:
        if "--device" not in arguments:
            patch.setattr(command, "choose_meter", lambda name, device: meter)
        patch.setattr(steps, "measure_fresh", measure)
        patch.setattr(command, "time", clock)
        patch.setattr(steps, "time", clock)
        # Facts are asked of a true board, in a process of its own: here there is none.
        patch.setattr(steps, "_run", no_board)
        device = () if "--device" in arguments else ("--device", "cuda:0")
        return campaign.main([*device, *arguments, *(["--quiet"] if quiet else [])])


def no_board(command, limit_s):
    raise steps.StepError("NVML cannot start")
