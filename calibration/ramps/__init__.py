"""Ramps, arrays of shape (nints, ngroups, ny, nx): everything before and including the slope fit."""
