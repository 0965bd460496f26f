"""Methods that learn from rewards (RLOO, GRPO), and the reward model that gives them."""
