"""The data: users' pictures as batches of tensors."""
