"""Many images to one: alignment, sky levels, outliers, resampling."""
