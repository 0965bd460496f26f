"""`python -m train.worker`: `wardrobe train worker`, for a server that starts it by this name."""

from __future__ import annotations

from train.worker.cli import worker

if __name__ == "__main__":
    worker()
