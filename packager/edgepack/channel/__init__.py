"""The owner's side of field updates: what signs releases, and where they are published."""
