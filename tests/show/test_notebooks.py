"""Notebooks: in step with the scripts beside them, shown live, and the one about EC2 in rehearsal.

The other notebooks are executed by nbmake, as pyproject.toml has it.
"""

import re
from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

from dask_classifier.show.notebook import CellProgress

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LINK = re.compile(r'<a href="(http://127.0.0.1:\d+/classify)" target="_blank">\1</a>')
IN_REHEARSAL = """
import nbclient, nbformat
book = nbformat.read({path!r}, 4)
nbclient.NotebookClient(book, timeout=600).execute()
nbformat.write(book, "executed.ipynb")
"""


def shown(cell):
    """All that a cell shows, as text."""
    parts = [output.get("data", {}) for output in cell.outputs]
    return "".join(output.get("text", "") for output in cell.outputs) + "".join(
        part.get("text/html", part.get("text/plain", "")) for part in parts
    )


def test_each_notebook_has_its_script():
    names = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert names == {path.stem for path in NOTEBOOKS.glob("*.py")} == {"explore", "own_classifier", "ec2"}


@pytest.mark.parametrize("script", sorted(NOTEBOOKS.glob("*.py")), ids=lambda script: script.stem)
def test_notebook_and_script_are_a_pair_and_nothing_is_left_of_a_run(script):
    made, kept = jupytext.read(script), nbformat.read(script.with_suffix(".ipynb"), 4)
    cells = [[(cell.cell_type, cell.source) for cell in book.cells] for book in (made, kept)]
    assert cells[0] == cells[1], "renew it with `make notebooks`"
    assert not any(cell.get("outputs") for cell in kept.cells)


def test_a_cell_shows_its_run_and_how_it_was(tmp_path):
    source = (
        "import dask_classifier as dc\n"
        "with dc.LocalCluster(2, dashboard_address='127.0.0.1:0') as cluster:\n"
        f"    result = dc.run(dc.plan(rows=3000, output={str(tmp_path / 'run')!r}, slowness=5), cluster)\n"
        "result"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    updates, early = [], CellProgress()._html()
    client = nbclient.NotebookClient(book, timeout=600)
    handle = client.process_message

    def listen(message, cell, index):
        if message["msg_type"] == "update_display_data":
            updates.append(message["content"]["data"]["text/html"])
        return handle(message, cell, index)

    client.process_message = listen
    client.execute()
    going = [text for text in updates if "<b>classifying</b>" in text]
    assert going and all(LINK.search(text) for text in going), "it was shown while it went on, with a link to its page"
    first = [text for text in updates if "<b>connecting</b>" in text or "<b>starting</b>" in text]
    assert not any("rows left" in text or "of 0" in text for text in [*first, early]), "nothing is counted yet"
    assert "<b>starting</b>" in early and "</b>:" not in early
    text = shown(book.cells[0])
    assert "<b>complete</b> 100%</div>" in text and "width: 100.00%" in text and "3,000" in text
    assert "<a " not in text and re.search(r"dashboard while it ran:</span> http://\S+/classify<", text)
    assert "Result" in text and "CLASSIFICATION" in text


def test_a_run_without_a_page_ends_in_one_word():
    cell = CellProgress()
    cell.stage("complete")
    cell._over.set()
    assert re.search(r"<b>complete</b>\s*</div>", cell._html())


def test_the_notebook_about_ec2(ec2):
    ec2.python(IN_REHEARSAL.format(path=str(NOTEBOOKS / "ec2.ipynb")))
    book = nbformat.read(ec2.folder / "executed.ipynb", 4)
    code = [shown(cell) for cell in book.cells if cell.cell_type == "code"]
    assert "2,000 generated rows" in code[0]
    assert "Starting 2 on-demand" in code[1] and "3 terminated" in code[1] and "<b>complete</b>" in code[1]
    assert "/classify" in code[1] and "dashboard while it ran" in code[1] and "ClusterSpec" in code[1]
    assert "{'started': 3,\n 'terminated': 3,\n 'left': []," in code[2] and "'dollars': 0.0" in code[2]
    assert "worker-0" in code[4] and "worker-1" in code[4]
    assert len(ec2.events("boot")) == 3


def test_a_cell_shows_whether_a_run_finishes_in_time():
    from dask_classifier.runs.progress import Beginning, Finished
    from dask_classifier.show.notebook import CellProgress

    cell = CellProgress()
    cell.start(Beginning(1000, 10, (), 0, 0))
    cell.count(Finished(0, 100, 0, "w", "h", 1))
    assert "to finish in time" not in cell._html()
    cell.aim(1.0)  # in 1970
    assert "to finish in time" in cell._html() and " late" in cell._html()
