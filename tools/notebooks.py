"""`make notebooks`: a script in the percent format becomes an executed notebook beside it."""

import sys
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError


def execute(script: Path) -> Path:
    """Runs a script as a notebook and writes it, with its outputs, beside the script; returns the path.

    What goes to standard error (progress, other libraries' greetings) is left out.
    """
    try:
        import jupytext
        import nbformat
        from nbclient import NotebookClient
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}: pip install 'genie_robotics[notebooks]'") from None
    notebook = jupytext.read(script)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(script.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of this run
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not is_error_stream(output)]
    path = script.with_suffix(".ipynb")
    nbformat.write(notebook, path)
    return path


def is_error_stream(output: Any) -> bool:
    return output.output_type == "stream" and output.name == "stderr"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(execute(Path(name)))
