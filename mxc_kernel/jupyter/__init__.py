"""The Jupyter side of the host: sockets, messages, requests, and the cells on their way."""
