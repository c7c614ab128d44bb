"""Turns scripts in the percent format into executed notebooks next to them.

python -m tools.notebooks SCRIPT.py ...    (`make notebooks` does this for all)
"""

import sys
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError


def execute(script: Path) -> Path:
    """Runs a script as a notebook and writes it with its outputs, without standard error; returns its path."""
    try:
        import jupytext
        import nbformat
        from nbclient import NotebookClient
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; run pip install 'genie_robotics[notebooks]'") from None
    notebook = jupytext.read(script)
    NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(script.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of this run
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not is_standard_error(output)]
    path = script.with_suffix(".ipynb")
    nbformat.write(notebook, path)
    return path


def is_standard_error(output: Any) -> bool:
    return output.output_type == "stream" and output.name == "stderr"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(execute(Path(name)))
