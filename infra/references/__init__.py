"""Reference files: chosen by the real client, fetched once, checked, read by memory map."""
