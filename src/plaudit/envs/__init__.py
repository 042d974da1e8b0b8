"""Worlds to act in: Gymnasium environments by id, many at once, and what was seen in them."""
