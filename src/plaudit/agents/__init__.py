"""What algorithms that act in worlds share: the loop, the agent, its evaluation, and parts of learners."""
