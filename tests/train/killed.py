"""A training that kills its own process: `python -m tests.train.killed ROOT FOLDER STEP`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from registry.store import Registry
from tests.train.tiny import Watcher, tiny_config, train


def main() -> None:
    root, folder, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

    def die(step: int) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    train(Registry.open(root), tiny_config(folder), Watcher(die))


if __name__ == "__main__":
    main()
