"""From evidence to an event: states, proposal, and the loop that appends it."""
