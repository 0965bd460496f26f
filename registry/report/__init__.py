"""Pages and pictures that load nothing and run nothing: one template, one style sheet, one plot module.

Import from the module that owns the name.
"""
