"""The real ``wxc-exec.exe`` judges requests for Windows, under Wine: `make wine`.

Wine has no AppContainers, so nothing is enforced and nothing is run: this is the executable's own
validation (``--dry-run``), which on Windows comes before the launch.
"""
