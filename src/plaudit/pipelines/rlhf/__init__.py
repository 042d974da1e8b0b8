"""The RLHF job: its keys, what it refuses, its data, answers, opinions and evaluation."""
