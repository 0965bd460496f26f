"""Rollouts played against made-up traffic, beside the rules of other tools."""
