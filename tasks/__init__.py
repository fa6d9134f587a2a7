"""One file per calibration step: takes arrays out of a product, calls a kernel, puts arrays back."""
