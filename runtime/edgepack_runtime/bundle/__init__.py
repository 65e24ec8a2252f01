"""What a bundle says of itself, and how it is read."""
