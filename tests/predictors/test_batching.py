"""The batch size is raised until a doubling saves less than five per cent."""

import pytest

from predictors.measurement.batching import LARGEST, search_batch_size


def search(energy_j, most=None):
    """Search on a device whose joules per sample are known; beyond ``most`` memory ends."""
    found = {}
    while (state := search_batch_size(found)).following is not None:
        size = state.following
        found[size] = None if most is not None and size > most else energy_j(size)
    return state.settled, found


@pytest.mark.parametrize(("fixed_j", "settled"), [(0.0, 1), (10.0, 128), (0.2, 2), (1e9, LARGEST)])
def test_doubling_ends_where_it_saves_under_five_per_cent(fixed_j, settled):
    def energy_j(size):
        # A fixed cost a batch, spread over its samples.
        return 1.0 + fixed_j / size

    found = search(energy_j)[0]
    assert found == settled
    if 1 < found < LARGEST:
        assert energy_j(found) <= 0.95 * energy_j(found // 2)
        assert energy_j(2 * found) > 0.95 * energy_j(found)


def test_memory_that_ends_ends_the_search():
    assert search(lambda size: 1 / size, most=16)[0] == 16
    assert search(lambda size: 1 / size, most=0) == (None, {1: None})


def test_a_search_goes_on_where_it_stood():
    assert search_batch_size({}).following == 1
    assert search_batch_size({1: 1.0, 2: 0.9}).following == 4
    assert search_batch_size({1: 1.0, 2: 0.96}).settled == 1
    # Sizes measured for another reason, beyond a gap, say nothing yet.
    assert search_batch_size({1: 1.0, 128: 0.1}).following == 2
