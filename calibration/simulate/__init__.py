"""The forward model: what the sky, the optics and the detector do to the light that the flows give back."""
