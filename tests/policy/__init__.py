"""Tests of the policy layer."""

from hypothesis import settings

# No deadline: the first example of each test also pays for imports, on a machine that may be busy.
laws = settings(max_examples=60, deadline=None)
