"""The model that came in: fetched, described, opened."""
