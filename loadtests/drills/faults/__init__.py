"""The fault drill: what a server does while its root, its engine or its callers fail."""
