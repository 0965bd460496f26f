"""LoRA on the CPU that is right in mixed batches: a replacement for vLLM's own wrapper.

`plugin` decides whether it is installed and imports nothing of torch; `wrapper` is imported by vLLM.
"""
