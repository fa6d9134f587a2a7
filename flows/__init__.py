"""One file per pipeline: the recipe, and the command line."""
