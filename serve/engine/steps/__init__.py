"""Which prompts a step of vLLM works on while groups share it.

`tags` is the order that the router says, `scheduler` keeps it, `plugin` puts that into vLLM.
"""
