"""Jobs on finite worlds: planning, learning by samples, partly seen worlds and games."""
