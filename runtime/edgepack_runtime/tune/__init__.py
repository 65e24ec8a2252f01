"""What this device can do best: measured here."""
