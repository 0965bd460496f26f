"""Data repaired by named rules, with a report of every row that changed or went."""

from train.dataset.repair.repairing import Repaired, repair_file
from train.dataset.repair.rules import DEFAULT, RULES, RepairSettings, parse_rules

__all__ = ["DEFAULT", "RULES", "RepairSettings", "Repaired", "parse_rules", "repair_file"]
