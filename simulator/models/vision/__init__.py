"""Nets that see pictures, by name."""
