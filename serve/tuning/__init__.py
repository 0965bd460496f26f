"""OpenAI's fine-tuning API: jobs, their events and checkpoints, graders. See README.md."""
