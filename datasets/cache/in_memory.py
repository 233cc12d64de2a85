"""What was read from files, kept in memory where all of it fits: a small dataset is decoded once, not once an epoch."""

import os

from torch.utils.data import get_worker_info


class Kept:
    """A function of 0 .. number - 1 whose results, tuples of tensors, are kept as long as all of them would fit.

    read: the function; what it raises is not kept. budget: bytes for one machine, shared out among
    its training processes and their workers, each of which keeps its own. Whether all will
    fit is judged by the mean size so far; where they will not, nothing is kept. Nobody may change a
    result.
    """

    def __init__(self, read, number, budget):
        self.read, self.number, self.budget = read, number, budget
        self.results, self.size = {}, 0

    def __getstate__(self):
        return self.__dict__ | {
            "results": {},
            "size": 0,
        }  # a worker gets none of them: tensors travel there by file descriptors

    def __call__(self, i):
        if i in self.results:
            return self.results[i]
        result = self.read(i)
        if self.budget:
            self.results[i] = result
            self.size += sum(tensor.nbytes for tensor in result)
            if self.size / len(self.results) * self.number > self.budget / processes_of_machine():
                self.results, self.budget = {}, 0
        return result

    def kept_bytes(self):
        """(what this process keeps now, what it will once everything was read)."""
        return self.size, round(self.size / max(1, len(self.results)) * self.number)


def processes_of_machine():
    """How many processes of this machine read the same data."""
    worker = get_worker_info()
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) * (worker.num_workers if worker else 1)
