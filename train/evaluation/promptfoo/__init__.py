"""Promptfoo's configs as suites: what OpenAI exports its evals as."""
