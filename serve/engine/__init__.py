"""The engine behind the router: the only package that knows vLLM. Modules are imported by name, for weight."""
