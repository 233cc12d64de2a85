"""The plan of micro-batches: legal sizes, halved from a step on, the same at every replay."""

from itertools import pairwise

import pytest
from toy_training_data import content_of, never_stop, training_data

from visionloop.engine.data.micro_batches import Halving, MicroBatchPlan, longest


@pytest.mark.parametrize(
    ("batch_size", "processes", "micro_batch", "smallest"),
    [(12, 1, 12, 1), (12, 1, 32, 2), (13, 2, 7, 1), (24, 4, 6, 2), (7, 7, 1, 1)],
)
def test_halving_goes_on_to_the_smallest_legal_size(batch_size, processes, micro_batch, smallest):
    plan, sizes = MicroBatchPlan(batch_size, processes, micro_batch, smallest=smallest), []
    while plan is not None:
        sizes.append(longest(plan.ranges(5)))
        assert min(stop - start for start, stop in plan.ranges(5)) >= smallest
        assert plan.ranges(4) == MicroBatchPlan(batch_size, processes, micro_batch).ranges(0)
        last, plan = plan, plan.halved_at(5)
    assert sizes == sorted(set(sizes), reverse=True)
    assert all(2 * small <= size + 1 for size, small in pairwise(sizes[:-1]))
    assert [one.before for one in last.halvings] == sizes[:-1]


def test_a_recorded_size_is_legal_for_any_number_of_processes():
    halvings = (Halving(3, 6, 1),)
    for processes in (1, 2, 3, 5):
        ranges = MicroBatchPlan(13, processes, 13, halvings).ranges(3)
        assert ranges[-1][1] == 13 and len(ranges) % processes == 0
        assert all(start < stop for start, stop in ranges)


def test_a_smaller_setting_is_kept():
    assert MicroBatchPlan(12, 1, 2, (Halving(3, 12, 6),)).size(9) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_prepared_ahead_are_collated_again_as_if_the_plan_had_been_known(workers):
    def fetch(data, steps):
        return [[content_of(batch) for batch in data.fetch(never_stop)] for _ in range(steps)]

    whole = MicroBatchPlan(8, 1, 8)
    halved = whole.halved_at(2)
    surprised = training_data(workers=workers, micro_batch=8)
    before = fetch(surprised, 3)
    surprised.restart(2, halved)
    after = fetch(surprised, 3)
    surprised.close()
    informed = training_data(workers=workers, micro_batch=8, plan=halved)
    assert fetch(informed, 5) == before[:2] + after
    informed.close()
    assert [len(step) for step in before[:2] + after] == [1, 1, 2, 2, 2]
