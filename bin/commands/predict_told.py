"""What `predict` says while it works: its bar, the lines in input order, the pictures that cannot be read."""

import json
import sys

from tqdm.auto import tqdm

from visionloop.engine.bars import is_watched


class Told:
    """Tells the lines of each batch once all before it are done, whoever answered it and in whichever start.

    unfinished: an UnfinishedAnswers; root: of the pictures; silent: in all processes but one.
    """

    def __init__(self, unfinished, root, num_pictures, *, as_json, silent):
        self.unfinished, self.root, self.as_json, self.silent = unfinished, root, as_json, silent
        self.batches = self.unreadable = 0  # told so far
        self._bar = tqdm(total=num_pictures, desc="predicting", unit="pic", disable=silent or not is_watched(), leave=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def advance(self):
        """Tell what is done since the last call."""
        while not self.silent and self.batches < self.unfinished.num_batches:
            try:
                self.tell_file(self.unfinished.lines_of(self.batches))
            except FileNotFoundError:
                return
            self.batches += 1

    def tell_file(self, path):
        """Tell the lines of a file."""
        with open(path) as lines:
            for line in lines:
                if self.as_json:
                    print(line, end="")
                row = json.loads(line) if '"error": ' in line else {}  # within a text the quotes would be escaped
                if "error" in row:
                    self.unreadable += 1
                    tqdm.write(f"error: {self.root / row['file']}: {row['error']}", file=sys.stderr)
                self._bar.update()
