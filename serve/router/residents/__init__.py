"""The versions that an engine holds: loaded, evicted, pinned, proved."""
