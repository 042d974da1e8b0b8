"""The small nets of control: layers, recurrences, action heads, policies, kernels and optimisers."""
