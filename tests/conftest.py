"""Hypothesis: the same examples on every run; `--hypothesis-profile=default` draws new ones."""

import gc

from hypothesis import settings

# timing decides no test: a loaded machine may take long over an example
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_finish():
    """Modules and tests stay until the end: the collector need not look at them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
