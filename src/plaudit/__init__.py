"""Plaudit: teach agents by reward, from reinforcement learning to RLHF."""

__version__ = "0.1.0"
