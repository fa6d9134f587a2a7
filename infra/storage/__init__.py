"""Stores: local, memory and s3 behind one set of functions."""
