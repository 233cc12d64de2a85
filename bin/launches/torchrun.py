"""torchrun that ends with the exit code of the training.

torchrun itself ends with 1 whatever its processes end with. A mistake in the input that is found
before the run has a folder is in no file: the exit code alone tells of it. A node that does not
come, or is lost, is no defect: the same command resumes when it is there.

    python -P -m visionloop.bin.launches.torchrun --nproc-per-node 2 bin/detection.py train ...
"""

import sys

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from visionloop.engine.errors import DEFECT, STOPPED, USER_ERROR


def main() -> None:
    """Run torchrun; exit with USER_ERROR or STOPPED if one of its processes did, else DEFECT."""
    try:
        torchrun()
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        codes = {failure.exitcode for failure in error.failures.values()}
        sys.exit(next((code for code in (USER_ERROR, STOPPED) if code in codes), DEFECT))
    except SignalException:
        # its processes got the signal too and have ended
        sys.exit(STOPPED)
    except DistError as error:
        if "failed to listen" in str(error):  # --master-port is in use
            raise
        reason = str(error).splitlines()[0]
        print(f"torchrun: another node did not come or is gone ({reason})", file=sys.stderr)
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
