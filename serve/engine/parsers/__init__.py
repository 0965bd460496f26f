"""Which of vLLM's tool and reasoning parsers fit a base model, by its family and its chat template."""
