"""What the launcher and its engine say: to the operator, and in files that are bounded."""
