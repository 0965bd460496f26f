"""Many teams on one server: what exists for a group, what divides groups, what each may use and has used."""
