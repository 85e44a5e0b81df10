"""The engine: a scenario in, a forecast out."""
