"""Nothing lost against ipykernel: suites that others wrote, and what no suite covers.

``python -m tests.conformance`` (``make conformance``) runs what takes minutes: the tests of
ipykernel, nbclient and papermill themselves, and their notebooks in both kernels. The ``test_*``
files here are part of the ordinary test run.
"""
