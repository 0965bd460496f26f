"""The root on a disk: every read, every atomic write, and what stays possible on a full or vanished disk."""
