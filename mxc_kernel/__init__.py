"""Python (MXC sandboxed): a Jupyter kernel that runs every cell inside an OS-enforced sandbox."""

__version__ = "0.1.0"
