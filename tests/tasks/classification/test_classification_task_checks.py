"""The engine's invariants on the real task."""

import pytest
from host_syncs import reads_of
from small_classification import make_noisy_task, make_quiet_task, make_task_with_drop_path

from visionloop.engine.testing.check_task import check_task, resume


@pytest.fixture(autouse=True)
def trial_data(data, monkeypatch):
    monkeypatch.setenv("SMALL_CLASSIFICATION_DATA", str(data))


@pytest.mark.slow
def test_classification_keeps_the_contract():
    assert len(check_task(make_quiet_task)) == 9


def test_a_stop_after_any_step_changes_no_byte_with_mixing_and_stochastic_depth(tmp_path):
    resume(make_noisy_task, tmp_path)


def test_steps_between_log_steps_read_nothing_from_the_device_with_stochastic_depth(tmp_path):
    # mixing is left out: it draws its numbers on the host, which this counter cannot tell from
    # reading a device
    short = reads_of(make_task_with_drop_path(), tmp_path / "short", steps=2, log_every=100)
    assert short == reads_of(make_task_with_drop_path(), tmp_path / "long", steps=8, log_every=100)
