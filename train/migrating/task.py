"""`python -m train.migrating.task ROOT FOLDER JOB OLD MARGIN WHO`: one training in its own process.

So a training that is killed for its memory ends no other job's, and each begins with all of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from registry.errors import WardrobeError
from train.process import environment
from train.process.interruption import Interruption
from train.process.priority import step_back_if_asked
from train.worker.process import die_with_parent

PROBLEM = "problem"
STOPPED = 130


def main() -> None:
    """Do what the command line names; what is wrong is left in the job's folder."""
    die_with_parent()
    step_back_if_asked()
    root, folder, name, old, margin, who = sys.argv[1:7]
    environment.use_one_gpu()
    environment.replace_process()
    from registry.store import Registry
    from train.migrating.folder import MigrationFolder
    from train.migrating.training import train_and_judge

    job = MigrationFolder(Path(folder)).job(name)
    with Interruption() as interruption:
        try:
            train_and_judge(job, Registry.open(Path(root)), old, float(margin), interruption, who)
        except KeyboardInterrupt:
            sys.exit(STOPPED)
        except WardrobeError as error:
            job.keep(PROBLEM, {"sentence": str(error)})
            sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
