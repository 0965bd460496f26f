"""The load runner: a seeded plan of requests, sent when they are due, measured, judged and reported."""
