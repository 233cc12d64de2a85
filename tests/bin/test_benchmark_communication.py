"""The messages of a step by their arithmetic, against those that a real step sends."""

from dataclasses import replace

import pytest
from torch.distributed.tensor.debug import CommDebugMode
from toy_task import ToyConfig, ToyTask

from visionloop.bin.benchmarks.communication import traffic_of
from visionloop.engine import loop
from visionloop.engine.distributed import join_world
from visionloop.engine.sharding.memory_estimate import ModelSizes, model_sizes
from visionloop.engine.testing.short_runs import CONFIG, on_ranks, shared_folder, train_steps

SIZES = ModelSizes(root=((1000,),), units=(((500, 4),), ((500, 4),)))  # 5000 weights


class ToyWithBlock(ToyTask):
    def sharding_units(self, module):
        return [module.block]


def messages_of_a_step(shard):
    """Count the collectives of one step of a run on this rank."""
    counts, train_step = [], loop.train_step

    def counted(*args):
        with CommDebugMode() as mode:
            done = train_step(*args)
        counts.append(sum(mode.get_comm_counts().values()))
        return done

    loop.train_step = counted
    config = replace(CONFIG, steps=2, shard=shard, eval_every=0, save_every=0)
    with shared_folder(join_world("cpu")) as output:
        train_steps(ToyWithBlock(ToyConfig()), output, config=config)
    return counts[-1]


def test_a_sharded_step_sends_as_many_messages_as_computed():
    task = ToyWithBlock(ToyConfig())
    module = task.build_model()
    sizes = model_sizes(module, task.sharding_units(module))
    computed = traffic_of(sizes, "full", ranks=2, per_node=2).messages
    assert on_ranks(2, messages_of_a_step, "full", context="fork") == [computed] * 2


def test_one_process_sends_nothing():
    assert traffic_of(SIZES, "none", ranks=1, per_node=1).sent_bytes == 0


@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_sharding_sends_half_as_much_again_as_ddp_where_all_is_in_units(ranks):
    units = ModelSizes(root=(), units=SIZES.units)
    ddp = traffic_of(units, "none", ranks=ranks, per_node=8).sent_bytes
    sharded = traffic_of(units, "full", ranks=ranks, per_node=8).sent_bytes
    assert sharded == pytest.approx(1.5 * ddp)
    half = traffic_of(units, "full", ranks=ranks, per_node=8, gather_bytes=2).sent_bytes
    assert half == pytest.approx(ddp)


def test_shards_of_a_node_send_only_an_eighth_of_the_gradients_between_nodes():
    node = traffic_of(SIZES, "node", ranks=64, per_node=8)
    ddp_of_nodes = traffic_of(SIZES, "none", ranks=8, per_node=8)
    assert node.between_nodes_bytes == pytest.approx(ddp_of_nodes.sent_bytes / 8)
    assert node.sent_bytes > node.between_nodes_bytes


def test_each_micro_batch_of_a_sharded_run_sends_everything_again():
    once, twice = (
        traffic_of(SIZES, "full", ranks=4, per_node=4, micro_batches=number) for number in (1, 2)
    )
    assert twice.sent_bytes == 2 * once.sent_bytes
    ddp = (traffic_of(SIZES, "none", ranks=4, per_node=4, micro_batches=n) for n in (1, 2))
    assert len(set(ddp)) == 1
