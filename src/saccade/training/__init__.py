"""The training: one loop, its recipe, its evaluation."""
