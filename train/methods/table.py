"""Which class is which method, by the name in the config."""

from __future__ import annotations

from collections.abc import Mapping

from train.config import TrainConfig
from train.methods.interface import Method
from train.methods.supervised import SupervisedMethod

METHODS: Mapping[str, Method] = {
    "supervised": SupervisedMethod(),
}


def method_of(config: TrainConfig) -> Method:
    """Return the method that `config` names."""
    return METHODS[config.method.type]
