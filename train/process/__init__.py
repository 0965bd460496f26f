"""The operating system's side of training: environment, signals, silence, several processes."""
