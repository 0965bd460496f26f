"""Training: conversations and a base model in, a registered adapter version with its lineage out."""

from train.config import TrainConfig, load_config

__all__ = ["TrainConfig", "load_config"]
