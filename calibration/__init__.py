"""The physics: NumPy and numba kernels, DQ bits, WCS models, and the forward simulator. Arrays in, arrays out."""
