"""How a build runs: stages, their cache, and the processes that work on them."""
