"""Graders: what a suite may name, and how each of them judges an answer."""
