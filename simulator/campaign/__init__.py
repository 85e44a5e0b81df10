"""A whole run: what it costs beyond its steps."""
