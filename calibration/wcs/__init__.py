"""Coordinates: detector, V2V3, sky, and the dispersion of the grisms."""
