"""Language models: their texts, parts, heads and adapters; `sampling` draws, `formats` loads and saves."""
