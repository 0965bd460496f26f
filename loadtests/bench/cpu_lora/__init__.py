"""LoRA on the CPU: vLLM's own against ours, and ours against its base."""
