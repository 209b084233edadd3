"""The models: a Vision Transformer with any attention."""
