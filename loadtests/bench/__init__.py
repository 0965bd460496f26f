"""Benchmarks: ratios measured in one run, written as JSON and as a Markdown table."""
