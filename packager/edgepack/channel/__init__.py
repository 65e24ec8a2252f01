"""The owner's side of field updates: sign and publish releases."""
