"""Draws the pictures of docs/ from the words of the code and from recorded runs."""
