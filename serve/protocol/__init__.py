"""What clients' protocols need beyond what vLLM does."""
