"""From grades to figures: intervals, paired tests, agreement. Pure."""
