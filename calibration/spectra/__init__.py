"""Spectra on the detector and out of it: extraction, contamination, combination."""
