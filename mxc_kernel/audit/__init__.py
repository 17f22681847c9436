"""The audit trail: what ran in the sandbox, under which policy, and what came of it.

Records are plain dicts, written as JSON lines and chained by hashes; `schema` says what they may
hold and judges them in `verify` and in the tests, never while a cell waits. Only `folder` is needed
before the first sandbox is launched.
"""
