"""Text that a language model writes, token by token: options, scores, the loop, pieces of text."""
