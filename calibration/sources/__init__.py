"""Sources in an image: detection, photometry, the catalog."""
