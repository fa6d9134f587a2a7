"""A table of exposures in, a list of associations out."""
