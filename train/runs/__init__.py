"""One run: a config and a root in, a job and a version out."""
