"""What a user runs to see that a deployment of theirs keeps its promises."""
