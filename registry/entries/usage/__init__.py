"""What was used: requests and tokens by group, key, adapter and day."""
