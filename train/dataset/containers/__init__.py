"""The containers that rows lie in: what a file is, and how it becomes rows of JSON, one at a time."""
