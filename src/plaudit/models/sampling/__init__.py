"""Answers drawn from language models: the loop, its draws, and what steps a model token by token."""
