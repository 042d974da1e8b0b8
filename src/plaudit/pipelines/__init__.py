"""Joins algorithms, rewards and data into jobs that a user asks for."""
