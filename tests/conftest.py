"""Properties are tested on the same examples every time; `--hypothesis-profile=default` draws new
ones.
"""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
