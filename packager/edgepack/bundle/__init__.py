"""Bundles on the build host: written, signed, compared, carried."""
