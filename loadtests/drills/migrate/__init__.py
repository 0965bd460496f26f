"""The drill of the migration: three jobs taken over by one command that is killed five times."""
