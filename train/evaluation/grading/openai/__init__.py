"""OpenAI's graders: the same code for `wardrobe eval`, reinforcement, and the API's `graders/run`."""
