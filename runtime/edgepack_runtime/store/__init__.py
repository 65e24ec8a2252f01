"""The device's disk: the releases on it, and which one runs."""
