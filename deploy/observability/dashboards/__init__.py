"""The Grafana dashboards, and what writes their files."""
