"""The device's side of field updates."""
