"""What the locust file is made of. Nothing here imports locust, which patches sockets when it is imported."""
