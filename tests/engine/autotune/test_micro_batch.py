"""`--micro-batch auto`: legal, as large as fits, tried only if it should fit, equal on ranks."""

import errno
import resource
import shutil

import pytest
import torch
from hungry_toy import MIB, SETTINGS, HungryToy, micro_batch_of_poor_ranks

from visionloop.engine.autotune.micro_batch import expected_bytes, largest_fitting
from visionloop.engine.data.sampler import legal_sizes, split_batch
from visionloop.engine.errors import UserError
from visionloop.engine.system import memory
from visionloop.engine.system.memory import HostMemory, group_free, is_out_of_memory
from visionloop.engine.testing.short_runs import on_ranks
from visionloop.engine.train import train


@pytest.mark.parametrize(
    ("batch_size", "processes", "smallest"),
    [(32, 1, 1), (32, 3, 1), (13, 2, 2), (7, 7, 1), (1024, 8, 2)],
)
def test_every_size_cuts_the_batch_into_legal_micro_batches(batch_size, processes, smallest):
    sizes = legal_sizes(batch_size, processes, smallest)
    assert sizes == sorted(set(sizes)) and sizes[-1] == -(-batch_size // processes)
    for size in sizes:
        lengths = [stop - start for start, stop in split_batch(batch_size, processes, size)]
        assert max(lengths) == size and min(lengths) >= smallest


def test_no_legal_size_is_one_line():
    with pytest.raises(
        UserError, match=r"^--batch-size 3: this training needs at least 2 samples in each process"
    ):
        legal_sizes(3, 3, 2)
    with pytest.raises(UserError, match=r"^--batch-size: expected at least one sample per process"):
        legal_sizes(2, 3, 1)


@pytest.mark.parametrize("available", [50, 120, 1000, 9000, 10**9])
def test_the_largest_is_found_and_nothing_far_too_large_is_tried(available):
    tried = []

    def step_bytes(size):
        tried.append(size)
        return 40 + 10 * size

    sizes = legal_sizes(1024, 1, 1)
    fits = [size for size in sizes if 40 + 10 * size <= available]
    assert largest_fitting(sizes, step_bytes, available) == (fits[-1] if fits else None)
    assert all(40 + 10 * size <= available for size in tried) and len(tried) <= 12


def test_a_size_that_takes_more_than_expected_is_given_up_for_a_smaller_one():
    num_bytes = {
        size: 10 * size if size < 20 else 10**6 if size < 30 else None for size in range(1, 65)
    }
    assert largest_fitting(list(num_bytes), num_bytes.get, 640) == 19
    assert largest_fitting([4, 8], lambda size: None, 100) is None


def test_a_step_is_expected_to_take_a_part_that_all_have_and_a_part_for_each_sample():
    assert (
        expected_bytes([], 8) == 0
        and expected_bytes([(2, 60), (4, 80)], 16) == 200
        and expected_bytes([(2, 60)], 4) == 120
    )


def test_the_rank_with_the_least_memory_decides_for_all_and_it_is_stored(tmp_path):
    settings = on_ranks(2, micro_batch_of_poor_ranks, str(tmp_path / "run"))
    stored = settings[0]
    assert settings[0] == settings[1] and stored["source"] == "auto" and 1 <= stored["value"] < 12


def test_all_fits_where_there_is_memory_and_a_resumed_run_tries_nothing(tmp_path, capsys):
    train(HungryToy, output=str(tmp_path), micro_batch="auto", **SETTINGS)
    assert "micro-batch auto: 24 (" in capsys.readouterr().out
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    assert (
        train(HungryToy, output=str(tmp_path), micro_batch="auto", **SETTINGS).state == "finished"
    )
    assert "micro-batch auto" not in capsys.readouterr().out


def test_nothing_fits_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 2 * MIB)
    with pytest.raises(
        UserError,
        match=r"^--micro-batch auto: not even 1 samples fit into the [\d.]+ GiB [^\n]+; [^\n]+$",
    ) as caught:
        train(HungryToy, output=str(tmp_path), micro_batch="auto", **SETTINGS)
    assert caught.value.code == "no_memory"


def test_a_sharded_run_is_refused_in_one_line_unless_its_size_was_measured_before(tmp_path):
    class NoModelToy(HungryToy):
        def build_model(self):
            raise AssertionError("nothing is built")

    sharded = SETTINGS | dict(output=str(tmp_path), micro_batch="auto", shard="full", save_every=1)
    with pytest.raises(UserError, match=r"^--micro-batch auto: not with --shard full, [^\n]+$"):
        train(NoModelToy, **sharded)
    train(HungryToy, **sharded | {"shard": "none"})
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000002")
    assert train(HungryToy, **sharded).state == "finished"
    assert list((tmp_path / "checkpoints").glob("*/weights-00001-of-00001.safetensors"))


def test_an_allocation_beyond_the_limit_fails_and_is_recognized():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(Exception, match=r".") as caught, HostMemory.limit_growth(64 * MIB):
        torch.ones(256 * MIB)
    assert (
        is_out_of_memory(caught.value)
        and not is_out_of_memory(RuntimeError("shapes differ"))
        and resource.getrlimit(resource.RLIMIT_AS) == before
    )


def test_errors_without_a_reason_are_of_memory_only_where_it_is_limited():
    errors = [RuntimeError("could not create a primitive"), RuntimeError("can't start new thread")]
    assert not any(map(is_out_of_memory, errors))
    with HostMemory.limit_growth(64 * MIB):
        assert all(map(is_out_of_memory, errors))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not is_out_of_memory(OSError(errno.EIO, "Input/output error"))


def test_a_control_group_counts_files_it_has_read_as_free(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 500\n")
    assert group_free(tmp_path, "memory.current", "memory.max") == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert group_free(tmp_path, "memory.current", "memory.max") > 2**40
