"""Writes a synthetic program: exposures, the references they need, the pool and the truth."""
