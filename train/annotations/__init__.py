"""Labels of several annotators: how far they agree, what they agree on, what is disputed.

Import from the module that owns the name.
"""
