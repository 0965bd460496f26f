"""Stored responses: `previous_response_id`, retrieve, delete, within bounds of memory and time."""
