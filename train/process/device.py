"""What a run takes of the machine it is on: which device, how much memory. torch only when asked."""

from __future__ import annotations

import resource


def peak_memory() -> int:
    """Return the most memory so far, in bytes: of the GPU where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(kind: str) -> str:
    """Return the device of torch's type `kind` in words; on a CPU, its threads decide the bytes too."""
    import torch

    return f"{kind}, {torch.get_num_threads()} threads" if kind == "cpu" else kind
