"""The measurement: what a model costs on this machine."""
