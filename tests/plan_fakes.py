"""A small plan of a campaign."""

import functools

from predictors.campaign.plan import Part, plan_campaign
from predictors.measurement.protocol import Protocol
from search_spaces.space.presets import get_space
from search_spaces.workload import Workload

SPACE = get_space("digits-tiny")
DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 16)
PROTOCOL = Protocol("p", 0.1, 5, 2.0, idle_s=0.5, block_size=4, chunk_s=0.003)


@functools.cache
def make_plan(n=24, seed=0, protocol=PROTOCOL):
    return plan_campaign([Part(SPACE, DIGITS, n)], protocol=protocol, device="cuda:0", seed=seed)
