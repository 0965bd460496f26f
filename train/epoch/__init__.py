"""Files of rows in, one epoch of token ids out."""
