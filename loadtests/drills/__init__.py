"""Drills: long runs against a real server, with a report of everything that went wrong."""
