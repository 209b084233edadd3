"""The largest batch: how many images fit into memory at a time, predicted, and confirmed where that is asked for."""
