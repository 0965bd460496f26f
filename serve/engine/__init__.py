"""The engine behind the router: the only package that knows vLLM. Import its modules by name."""
