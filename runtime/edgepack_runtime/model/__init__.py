"""A loaded bundle: from its files to its answers."""
