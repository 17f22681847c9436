"""Runs notebooks unattended, each in a sandboxed kernel of its own.

from mxc_kernel.batch import run_notebooks

report = run_notebooks(["notebooks/"], output_dir="executed", jobs=4)
print(report.status, report.counts)
"""

from mxc_kernel.batch.client import SandboxedKernelManager, client_options
from mxc_kernel.batch.outcomes import Status
from mxc_kernel.batch.page import render_page
from mxc_kernel.batch.report import CellReport, NotebookReport, RunReport, report_schema
from mxc_kernel.batch.runner import Options, run_notebooks, run_notebooks_async

__all__ = [
    "CellReport",
    "NotebookReport",
    "Options",
    "RunReport",
    "SandboxedKernelManager",
    "Status",
    "client_options",
    "render_page",
    "report_schema",
    "run_notebooks",
    "run_notebooks_async",
]
