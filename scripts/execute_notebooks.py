"""Execute the notebooks of examples/ in an empty folder and keep what they show. `make notebooks` calls this."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"


def execute(path: Path) -> None:
    """Run every cell; an error in one is raised. Progress lines, which differ each time, are not kept."""
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=900, record_timing=False, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined([one for one in cell.outputs if one.get("name") != "stderr"])
    nbformat.write(notebook, path)


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What a cell printed, as one output however often it was flushed."""
    kept: list[nbformat.NotebookNode] = []
    for one in outputs:
        if kept and kept[-1].output_type == one.output_type == "stream":
            kept[-1].text += one.text
        else:
            kept.append(one)
    return kept


def main(names: list[str]) -> None:
    """Execute the notebooks named, or all."""
    for path in [Path(name) for name in names] or sorted(EXAMPLES.glob("*.ipynb")):
        print(path, flush=True)
        execute(path)


if __name__ == "__main__":
    main(sys.argv[1:])
