"""What runs a build: stages, their cache, the processes that work on them."""
