"""What becomes tensors: one file a kind of input."""
