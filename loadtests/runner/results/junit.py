"""The checks of a run as JUnit XML: one test case each, so that a CI system shows which bar was missed."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from loadtests.runner.results.documents import Report


def junit(report: Report) -> str:
    """Return the XML document."""
    name = str(report.scenario["name"])
    failed = sum(not check.passed for check in report.checks)
    counts = {"tests": str(len(report.checks)), "failures": str(failed), "errors": "0", "skipped": "0"}
    root = ET.Element("testsuites", {"name": "wardrobe loadtest", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": name, "time": f"{report.seconds:.3f}", **counts})
    for check in report.checks:
        case = ET.SubElement(suite, "testcase", classname=f"loadtest.{name}", name=check.name)
        if not check.passed:
            message = f"{_plain(check.sentence)} (bar: {check.bar})"
            ET.SubElement(case, "failure", message=message, type="threshold").text = message
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _plain(text: str) -> str:
    # XML 1.0 cannot carry control characters, not even escaped ones.
    return "".join(char if char.isprintable() else " " for char in text)
