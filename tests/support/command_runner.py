"""Run launchers one after the other, each in a fork of a process that has imported everything.

Standard input: a json list of command lines as lists of words, `bin/x.py ..`, with RUN for the
folder of the newest run below this one. Standard output: a json list of [exit code, what it
printed].
"""

import importlib
import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
TASKS = ("classification", "detection", "segmentation", "super_resolution")


def play(words):
    """(exit code, all that was printed) of one command."""
    with tempfile.TemporaryFile() as printed:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for stream in (1, 2):
                    os.dup2(printed.fileno(), stream)
                sys.argv = words
                runpy.run_path(str(ROOT / words[0]), run_name="__main__")
                code = 0
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else int(left.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        printed.seek(0)
        return code, printed.read().decode(errors="replace")


def main():
    for task in TASKS:
        importlib.import_module(f"visionloop.tasks.{task}.task")
    importlib.import_module("torch.utils.tensorboard")
    commands, results = json.load(sys.stdin), []
    for words in commands:
        runs = sorted(Path().glob("*/*/settings.json"), key=lambda file: file.stat().st_mtime_ns)
        newest = str(runs[-1].parent) if runs else "RUN"
        results.append(play([word.replace("RUN", newest) for word in words]))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
