"""Many teams on one server: what exists for a group, and what divides groups from each other."""
