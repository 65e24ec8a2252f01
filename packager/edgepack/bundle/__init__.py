"""Bundles on the build host: write, sign, compare and carry them."""
