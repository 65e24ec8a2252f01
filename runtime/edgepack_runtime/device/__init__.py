"""What this device is, and what was measured on it."""
