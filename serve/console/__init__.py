"""The console: what serves, why it was decided, and the buttons, in a browser."""
