"""Images, arrays of shape (ny, nx) or (nints, ny, nx): stage 2 on the detector."""
