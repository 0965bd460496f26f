"""A data set with one fault of every kind, each at a row that is known."""
