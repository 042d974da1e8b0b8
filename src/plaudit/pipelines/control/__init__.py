"""Jobs on Gymnasium environments, and how good the agent is that they leave."""
