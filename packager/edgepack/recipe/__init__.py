"""What people write: recipes and targets."""
