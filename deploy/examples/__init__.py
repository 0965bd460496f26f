"""The whole product on a real model, as scripts to read and run: `make demo`."""
