"""The world outside: products and their files, stores, reference selection, settings, deployments."""
