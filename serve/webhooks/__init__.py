"""Webhooks of OpenAI's kind: events of jobs, signed, sent once. See README.md."""
