"""Evaluation: suites, graders, paired tests, the gate and its reports.

The names below are light: neither numpy nor anything heavier is imported with them.
"""

from registry.validation.requirements import GateState, GateVerdict, gate_verdict

__all__ = ["GateState", "GateVerdict", "gate_verdict"]
