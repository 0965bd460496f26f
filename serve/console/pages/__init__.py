"""The pages: each shows one subject, and asks a row of a table of operations or the memory of its process."""
