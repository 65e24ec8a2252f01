"""Measurements on this device, to find what it runs best."""
