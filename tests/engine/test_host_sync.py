"""The host reads from the device at log steps only."""

from host_syncs import reads_of
from toy_task import ToyConfig, ToyTask


def toy():
    return ToyTask(ToyConfig(batch_norm=True))


def test_steps_between_log_steps_read_nothing_from_the_device(tmp_path):
    # both runs log once, at their end; the second has 20 more steps
    assert reads_of(toy(), tmp_path / "short", steps=5, log_every=100) == reads_of(
        toy(), tmp_path / "long", steps=25, log_every=100
    )


def test_the_counter_sees_the_reads_of_log_steps(tmp_path):
    assert reads_of(toy(), tmp_path / "quiet", steps=20, log_every=100) < reads_of(
        toy(), tmp_path / "talkative", steps=20, log_every=2
    )
