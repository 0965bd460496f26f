"""Set-up, deployment files and the demo."""
