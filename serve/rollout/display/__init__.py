"""What people see of a rollout: status, sentences, pictures."""
