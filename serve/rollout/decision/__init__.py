"""From evidence to an event: states, policy, judgement, proposal, and the loop that appends it."""
