"""What is told about requests: metrics, the access log, traces, the replica's own state."""
