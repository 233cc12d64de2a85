"""Which samples a step sees, and what seeds them: pure functions, so a resume needs no saved generator.

The global batch of step k is the slice [kB, (k+1)B) of an endless sequence of epochs, each a
permutation that depends on (seed, epoch) alone. Ranks, micro-batches and workers only divide it.
"""

import numpy as np

from visionloop.engine.errors import UserError
from visionloop.engine.seeding import ORDER, hashed


def epoch_permutation(num_samples, seed, epoch):
    """The order of one epoch: int64 [num_samples] (20 ms for a million)."""
    generator = np.random.Generator(np.random.PCG64(hashed(ORDER, seed, epoch)))
    return generator.permutation(num_samples)


def split_batch(batch_size, world_size, micro_batch):
    """The pieces [(start, stop)] of a global batch; rank r takes pieces r, r + W, ... in turn.

    There are G = W * ceil(B / (W * micro_batch)) of them, sizes differ by one at most and none is
    empty. Raises UserError when B < W or a piece would be empty.
    """
    if batch_size < world_size:
        raise UserError(
            f"--batch-size: expected at least one sample per process ({world_size}), got {batch_size}",
            field="batch_size",
        )
    per_rank = -(-batch_size // (world_size * micro_batch))
    num_pieces = world_size * per_rank
    if num_pieces > batch_size:
        raise UserError(
            f"--micro-batch {micro_batch} does not divide --batch-size {batch_size} over {world_size} processes: a piece would be empty",
            field="micro_batch",
        )
    return [
        (piece * batch_size // num_pieces, (piece + 1) * batch_size // num_pieces)
        for piece in range(num_pieces)
    ]


class EpochSampler:
    """The endless sequence of samples, cut into global batches."""

    def __init__(self, num_samples, batch_size, seed):
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self._permutations = {}

    def permutation(self, epoch):
        if epoch not in self._permutations:
            # a batch spans two epochs at most unless the data is smaller than a batch: two are
            # worth keeping
            if len(self._permutations) > 1:
                self._permutations.clear()
            self._permutations[epoch] = epoch_permutation(self.num_samples, self.seed, epoch)
        return self._permutations[epoch]

    def epoch_of(self, step):
        """The epoch that the first sample of this step belongs to."""
        return step * self.batch_size // self.num_samples

    def batch(self, step):
        """[(epoch, position)] of the B samples of this step; position counts within the epoch."""
        first = step * self.batch_size
        return [divmod(place, self.num_samples) for place in range(first, first + self.batch_size)]

    def index(self, epoch, position):
        """The dataset index at this position of this epoch."""
        return int(self.permutation(epoch)[position])

    def sample_ids(self, step):
        """Dataset indices of the global batch of this step."""
        return [self.index(epoch, position) for epoch, position in self.batch(step)]
