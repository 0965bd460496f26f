"""One module per kind of file under a root: its path, its shape, how it is read and appended to."""
