"""The parent of the engine's process: it holds the socket, restarts, drains, and leaves nothing behind."""
