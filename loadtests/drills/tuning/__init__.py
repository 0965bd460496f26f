"""The drill of the workers: many small fine-tuning jobs, workers killed at random, nothing lost or done twice."""
