"""The models: a Vision Transformer and a masked autoencoder, with any attention."""

from saccade.models.sizes import create_model, list_models, model_defaults

__all__ = ["create_model", "list_models", "model_defaults"]
