"""The host reads from the device at log steps only."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode
from toy_task import ToyConfig, ToyTask

from visionloop.engine.trials import CONFIG, train_steps

# what makes the host wait for the device: reading a value, or an operation whose output shape depends on values
READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "item", "unique")


class CountReads(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.reads = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name.lstrip("_") in {read.lstrip("_") for read in READS}:
            self.reads[name] += 1
        return function(*args, **(kwargs or {}))


def reads_of(folder, steps, log_every):
    from dataclasses import replace

    config = replace(
        CONFIG, steps=steps, log_every=log_every, eval_every=0, save_every=0, micro_batch=4, clip_grad=1.0, precision="bf16"
    )
    counter = CountReads()
    task = ToyTask(ToyConfig(batch_norm=True))
    with counter:
        train_steps(task, folder, config=config)
    return sum(counter.reads.values())


def test_steps_between_log_steps_read_nothing_from_the_device(tmp_path):
    # both runs log once, at their end; the second has 20 more steps
    assert reads_of(tmp_path / "short", 5, 100) == reads_of(tmp_path / "long", 25, 100)


def test_the_counter_sees_the_reads_of_log_steps(tmp_path):
    assert reads_of(tmp_path / "quiet", 20, 100) < reads_of(tmp_path / "talkative", 20, 2)
