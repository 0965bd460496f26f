"""Federated averaging: adapters that were trained apart, made into one by weight."""
