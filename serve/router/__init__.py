"""The hot path: from a request to the version that answers it, and to its outcome."""
