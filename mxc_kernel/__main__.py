"""``python -m mxc_kernel``: the same as the command ``mxc-kernel``."""

import sys

from mxc_kernel_start import main

sys.exit(main())
