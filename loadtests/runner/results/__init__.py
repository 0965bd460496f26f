"""From records to a report: figures, verdicts, pages, comparison."""
