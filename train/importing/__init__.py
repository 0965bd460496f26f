"""Configs of other trainers into ours: Axolotl, LLaMA-Factory, and the nested form that guides print.

Import from the module that owns the name.
"""
