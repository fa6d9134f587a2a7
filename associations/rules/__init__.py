"""Typed rules: which exposures belong together, and in which role."""
