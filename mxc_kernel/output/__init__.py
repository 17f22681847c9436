"""What may leave the sandbox: caps, redaction and safe rich output.

Pure rules over text, bytes and MIME types. Nothing here starts a process, opens a socket or knows a
Jupyter message; the gate calls these modules in the order cap, redact, make safe. The submodules
are imported by name where they are needed, so that a kernel's start does not pay for them.
"""
