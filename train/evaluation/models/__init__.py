"""Who is asked: a model in this process or behind a server, and how a reference becomes one."""
