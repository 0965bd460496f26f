"""Batches: files of requests that are answered while nobody else needs the engine. See README.md."""
