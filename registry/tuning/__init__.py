"""Fine-tuning jobs: what was asked, the log that says how far each is, whose turn it is, who works."""
