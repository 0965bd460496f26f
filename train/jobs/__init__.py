"""The record of every training run: `jobs/<id>/` under the root.

Import from the module that owns the name.
"""
