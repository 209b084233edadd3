"""Other libraries' names and calls for what saccade computes."""
