"""Tests of the relay's parts without a sandbox: the child's messages are made by hand."""
