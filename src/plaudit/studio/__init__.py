"""The studio: pages and an API where people say what they think, kept as they say it."""
