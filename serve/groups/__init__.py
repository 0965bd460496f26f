"""Many teams on one server: what exists for a group, what divides groups, and who is next."""
