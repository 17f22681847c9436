"""The MXC side of the kernel: the executable, its request, its user and the child's interpreter.

Nothing here knows of Jupyter.
"""
