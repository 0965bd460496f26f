"""What an adapter must be, what the base is, and the digest of a version. Reads folders, never the store."""
