"""How many adapters an engine has room for: chosen from what is registered and from the memory there is."""
