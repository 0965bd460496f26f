"""The pages of an evaluation and of a gate.

Import from the module that owns the name.
"""
