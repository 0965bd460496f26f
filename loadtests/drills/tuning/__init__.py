"""The drill of the workers: many small jobs, workers killed at random, nothing lost or done twice."""
