"""Pages that load nothing and run nothing: the look and the plots of every report.

Import from the module that owns the name.
"""
