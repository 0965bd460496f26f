"""The root on a disk: every read, every atomic write, and what stays possible when the disk is full or away."""
