"""What a bundle says about itself, and how it is read."""
