"""What an adapter must be, what the base is, and the digest that names a version. Reads folders, never the store."""
