"""What the platform endpoints of OpenAI's API share, and files and uploads."""
