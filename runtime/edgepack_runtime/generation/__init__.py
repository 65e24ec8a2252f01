"""How a language model writes text, token by token: options, scores, the loop, pieces of text."""
