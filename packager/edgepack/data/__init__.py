"""What a build reads of data: rows, and the texts that are made of them."""
