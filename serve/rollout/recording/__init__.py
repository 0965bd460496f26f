"""What one replica saw, as files, and all replicas' evidence as one."""
