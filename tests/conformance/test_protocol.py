"""What others have written to test kernels and to run notebooks, against this kernel."""

from __future__ import annotations

from pathlib import Path

import jupyter_kernel_test
import nbformat
import papermill
import pytest

KERNEL = "mxc-python"

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


class TestTheProtocol(jupyter_kernel_test.KernelTests):
    """The tests of jupyter_kernel_test, with every feature switched on that they can test."""

    kernel_name = KERNEL
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    code_page_something = "print?"
    code_generate_error = "raise ValueError"
    code_execute_result = ({"code": "1+2", "result": "3"},) * 3
    code_display_data = (
        {"code": "from IPython.display import HTML, display; display(HTML('<b>x</b>'))",
         "mime": "text/html"},
    )  # fmt: skip
    code_clear_output = "from IPython.display import clear_output; clear_output()"
    code_inspect_sample = "zip"
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")
    completion_samples = ({"text": "zi", "matches": {"zip"}},)
    complete_code_samples = ("1", "print('hello')", "def f(x):\n  return x*2\n\n\n")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2")
    invalid_code_samples = ("import = 7q",)


def test_papermill_fills_in_parameters_and_reports_errors(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell("print('n is', n)"),
            nbformat.v4.new_code_cell("assert n > 1, 'too small'"),
        ],
        metadata={"kernelspec": {"name": KERNEL, "display_name": "", "language": "python"}},
    )
    source, done = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    nbformat.write(notebook, source)

    def run(n: int) -> str:
        papermill.execute_notebook(source, done, {"n": n}, progress_bar=False)
        return str(nbformat.read(done, as_version=4))

    assert "n is 5" in run(5)
    with pytest.raises(papermill.PapermillExecutionError, match="too small"):
        run(0)
