"""What a request's body may cost before anybody works on it: its time, its memory, its shape, its text."""
