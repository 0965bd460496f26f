"""The sections of a training config, one module each; `train.config` puts them together."""
