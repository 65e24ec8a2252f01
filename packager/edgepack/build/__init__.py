"""The product: a recipe and a target become a plan, and a plan becomes a bundle."""
