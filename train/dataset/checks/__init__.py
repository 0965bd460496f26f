"""What can be wrong with a data set: the catalogue of findings, each check, and one pass that runs them."""
