"""What OpenAI's API brings into a root: files, uploads, batches, names of tuned models."""
