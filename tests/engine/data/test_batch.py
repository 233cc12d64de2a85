"""Batches: nested tensors are mapped together, ragged ones in one piece."""

import torch

from visionloop.engine.batch import Batch, RaggedTensor


def test_a_ragged_tensor_is_the_list_of_its_tensors():
    tensors = [torch.rand(size, 4) for size in (2, 0, 3)]
    ragged = RaggedTensor.cat(tensors)
    assert len(ragged) == 3 and ragged.sizes == (2, 0, 3)
    for rows in (ragged, [ragged[i] for i in range(3)], [*ragged[:2], ragged[-1]]):
        assert all(map(torch.equal, rows, tensors))


def test_a_ragged_tensor_goes_to_the_device_in_one_copy():
    labels = RaggedTensor.cat([torch.arange(size) for size in (2, 0, 3)])
    batch = Batch({"sample_ids": torch.arange(3), "labels": labels}, step=2, offset=4)
    copied = []
    moved = batch.map_tensors(lambda tensor: copied.append(tensor) or tensor + 1)
    assert len(copied) == 2 and (moved.step, moved.offset) == (2, 4)
    assert [rows.tolist() for rows in moved["labels"]] == [[1, 2], [], [1, 2, 3]]
    assert [rows.tolist() for rows in batch["labels"]] == [[0, 1], [], [0, 1, 2]]
