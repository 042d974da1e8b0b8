"""Language models as files: Hugging Face folders, safetensors and GGUF."""
