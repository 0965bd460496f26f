"""Data repaired by named rules, with a report of every row that changed or went."""
