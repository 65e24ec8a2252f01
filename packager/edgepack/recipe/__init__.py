"""The files that people write: recipes and targets."""
