"""Prometheus rules, Alertmanager and Grafana files, and what writes and describes them."""
