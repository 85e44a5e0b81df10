"""Hypothesis: the same examples on every run; `--hypothesis-profile=default` draws new ones."""

from hypothesis import settings

# timing decides no test: a loaded machine may take long over an example
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
