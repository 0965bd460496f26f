"""Training: conversations and a base model in, a registered adapter version with its lineage out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.config import TrainConfig, load_config

__all__ = ["TrainConfig", "load_config"]


def __getattr__(name: str) -> object:
    # Imported when it is asked for: pydantic alone costs `wardrobe --help` a third of its time.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from train import config

    return getattr(config, name)
