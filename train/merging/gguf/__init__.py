"""GGUF files of merged models and of adapters, for llama.cpp, Ollama and LM Studio."""
