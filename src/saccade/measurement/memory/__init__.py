"""Memory: what a training step takes, predicted without running it, tracked tensor by tensor, and weighed."""
