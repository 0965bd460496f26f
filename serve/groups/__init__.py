"""Many teams on one server: what exists for a group, who is next, what each may use and has used."""
