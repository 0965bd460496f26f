"""What clients see around an answer: paths, keys, models, feedback, response ids, errors."""
