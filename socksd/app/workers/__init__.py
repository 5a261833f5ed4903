"""Several processes that serve as one: a parent that listens, and workers that accept."""
