"""Plans of campaigns: their items, the order and the keys of these."""

from dataclasses import replace

import pytest
from plan_fakes import DIGITS, PROTOCOL, SPACE, make_plan

from predictors.campaign.plan import Part, PlanItem, plan_campaign, plan_items
from predictors.measurement.protocol import Protocol
from search_spaces.cost.kernels import kernel_fault
from search_spaces.space.encoding import to_vector
from search_spaces.space.presets import get_space
from search_spaces.workload import Workload


def test_the_key_of_an_item_changes_with_all_that_its_record_depends_on():
    plan = make_plan(4)
    item = plan.items[0]
    other = replace(plan, protocol=replace(PROTOCOL, window_s=3.0))
    keys = [plan.key(item), other.key(item), replace(plan, device="cuda:1").key(item)]
    keys += [plan.key(replace(item, repeat=item.repeat + 1)), plan.key(plan.items[1])]
    keys += [plan.key(replace(item, runtime="onnxruntime"))]
    assert len(set(keys)) == len(keys) and plan.key(item) == make_plan(4).key(item)


def test_another_protocol_or_device_is_another_measurement():
    plan = make_plan(4)
    other = plan_items(
        plan.items, protocol=Protocol("q", 0.1, 5, 0.5, block_size=4), device="cuda:0"
    )
    elsewhere = plan_items(plan.items, protocol=PROTOCOL, device="cpu")
    keys = [{p.key(item) for item in p.items} for p in (plan, other, elsewhere)]
    assert not keys[0] & keys[1] and not keys[0] & keys[2]


def test_a_plan_is_the_same_each_time_holds_repeats_and_serves_each_part():
    lm = Workload("text", "language_modelling", (32,), 100, 4, vocab_size=100)
    parts = [Part(SPACE, DIGITS, 30), Part(get_space("decoder-base"), lm, 30)]
    plan = plan_campaign(parts, protocol=PROTOCOL, device="cpu", seed=3)
    assert plan == plan_campaign(parts, protocol=PROTOCOL, device="cpu", seed=3)
    assert plan != plan_campaign(parts, protocol=PROTOCOL, device="cpu", seed=4)
    repeats = [item for item in plan.items if item.repeat]
    assert len(repeats) == 6
    for item in repeats:
        first = plan.items.index(PlanItem(item.architecture, item.workload))
        assert first < plan.items.index(item)
    # However early it is cut, each workload has its share.
    for n in (10, 20, 40):
        names = [item.workload.name for item in plan.items[:n]]
        assert abs(names.count("digits") - names.count("text")) <= n // 2


def test_a_plan_covers_the_space_better_than_chance():
    import numpy as np

    from search_spaces.space.sampling import sample

    rng = np.random.default_rng(0)
    targets = np.stack([to_vector(sample(SPACE, rng), SPACE) for _ in range(200)]).astype(float)
    span = np.maximum(targets.max(axis=0) - targets.min(axis=0), 1)

    def radius(architectures):
        points = np.stack([to_vector(a, SPACE) for a in architectures])
        gaps = np.linalg.norm((targets[:, None] - points[None]) / span, axis=2)
        return gaps.min(axis=1).max()

    planned = [item.architecture for item in make_plan(40).items if not item.repeat]
    random = [sample(SPACE, rng) for _ in range(len(planned))]
    assert radius(planned) < radius(random) * 1.05


def test_a_space_that_does_not_fit_the_workload_is_refused():
    odd = Workload("odd", "image_classification", (1, 7, 7), 10, 16)
    with pytest.raises(ValueError, match="fit workload 'odd/b16' on cpu"):
        plan_campaign([Part(SPACE, odd, 3)], protocol=PROTOCOL, device="cpu")


def test_given_items_come_in_random_order_with_the_same_keys():
    given = make_plan(12).items
    plain = plan_items(given, protocol=PROTOCOL, device="cpu")
    mixed = plan_items(given, protocol=PROTOCOL, device="cpu", seed=1)
    assert plain.items == tuple(given) != mixed.items
    assert mixed == plan_items(given, protocol=PROTOCOL, device="cpu", seed=1)
    assert set(map(plain.key, given)) == set(map(mixed.key, mixed.items))
    assert plain.reference == mixed.reference


def test_only_what_has_a_kernel_on_the_device_is_planned():
    lm = Workload("text", "language_modelling", (32,), 100, 4, vocab_size=100)
    space = get_space("decoder-base")
    plan = plan_campaign([Part(space, lm, 60)], protocol=PROTOCOL, device="cuda:0")
    assert len({i.architecture for i in plan.items}) == 60
    assert all(kernel_fault(i.architecture, "cuda:0") is None for i in plan.items)
    kinds = {b.compression for i in plan.items[:30] for b in i.architecture.blocks}
    assert {c.precision for c in kinds} >= {"fp32", "bf16", "int8", "fp8"}
    assert {c.sparsity for c in kinds} == {"dense", "2:4"}
