"""One module for each trainer whose config is read; `others` for those that are recognised only."""
