"""What acts and judges: language models, their texts, heads and sampler."""
