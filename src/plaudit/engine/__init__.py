"""Where roles run: in this process."""
