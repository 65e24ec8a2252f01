"""What this device is, and what fits it."""
