"""Which class is which method, by the name in the config."""

from __future__ import annotations

from collections.abc import Mapping

from train.config import TrainConfig
from train.methods.interface import Method
from train.methods.paired.kto import KtoMethod
from train.methods.paired.preferences import DpoMethod, OrpoMethod
from train.methods.pretrain import PretrainMethod
from train.methods.rewarded.online import GrpoMethod, RlooMethod
from train.methods.rewarded.reward import RewardMethod
from train.methods.supervised import SupervisedMethod

METHODS: Mapping[str, Method] = {
    "supervised": SupervisedMethod(),
    "pretrain": PretrainMethod(),
    "dpo": DpoMethod(),
    "kto": KtoMethod(),
    "orpo": OrpoMethod(),
    "reward": RewardMethod(),
    "rloo": RlooMethod(),
    "grpo": GrpoMethod(),
}


def method_of(config: TrainConfig) -> Method:
    """Return the method that `config` names."""
    return METHODS[config.method.type]
