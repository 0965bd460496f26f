"""The engine as a child process: started, listened to, watched, and let go of."""
