"""The sandboxed child: the real ipykernel behind a pipe.

Everything below this package runs inside the sandbox and is untrusted by the host. It imports
nothing of the host's side but :mod:`mxc_kernel.wire`, and nothing but the standard library before
:mod:`mxc_kernel.worker.transport` has taken the pipe away from user code.
"""
