"""What changes the store: publishing, moving aliases, deleting, collecting, verifying, exporting."""
