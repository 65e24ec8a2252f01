"""The data of a build: rows, and the texts that are made from them."""
