"""In-memory products next to their files."""
