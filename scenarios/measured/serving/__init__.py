"""Measured runs of servers: words of tables, rows as servers and loads."""
