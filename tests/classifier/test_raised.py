"""Whatever a classifier raises makes a bad row, and the message shows where in the user's own code."""

import json
import signal
import subprocess
import sys
import time

import pytest

import dask_classifier as dc
from dask_classifier.errors import TooManyBadRows, WrongAnswer
from dask_classifier.runs.progress import Finished

RAISE = {
    "PanicException": "raise type('PanicException', (BaseException,), {})('index out of bounds')",
    "CancelledError": "import asyncio; raise asyncio.CancelledError('stop')",
    "SystemExit": "raise SystemExit(3)",
    "KeyboardInterrupt": "raise KeyboardInterrupt('of its own')",
    "GeneratorExit": "raise GeneratorExit",
    "Unprintable": "raise type('Unprintable', (Exception,), {'__str__': lambda self: 1 / 0})",
}


def raising(tmp_path, what):
    code = tmp_path / "mine.py"
    code.write_text(f"def f(chunk):\n    if '13' in chunk.index:\n        {what}\n    return [1] * len(chunk)\n")
    return f"{code}:f"


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("name", RAISE)
def test_whatever_a_classifier_raises_makes_a_bad_row(cluster, tmp_path, name, inline):
    if inline and name == "KeyboardInterrupt":
        return  # inline it is Ctrl-C
    made = dc.plan(rows=200, output=tmp_path / "run", classifier=raising(tmp_path, RAISE[name]), max_bad=1)
    result = dc.run(made, None if inline else cluster)
    (reason,) = result.quarantined().reason
    assert reason.startswith(f"{name}: ") and "(mine.py:3, in f: " in reason
    assert (result.rows, result.bad_rows) == (199, 1)


def test_an_interrupt_of_an_inline_run_is_no_bad_row(tmp_path):
    """A real signal, while the classifier is at work."""
    (tmp_path / "mine.py").write_text(
        "import pathlib, time\ndef f(chunk):\n    pathlib.Path('begun').touch()\n    time.sleep(600)\n"
    )
    options = ["--rows", "50", "--classifier", "mine.py:f", "--cluster", "inline", "--max-bad", "50", "--output", "run"]
    run = subprocess.Popen(
        [sys.executable, "-m", "dask_classifier", *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "begun").exists():
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 130 and "Interrupted" in said


def test_a_debugger_without_a_person_makes_a_bad_row(cluster, tmp_path):
    code = raising(tmp_path, "breakpoint()")
    result = dc.run(dc.plan(rows=200, output=tmp_path / "run", classifier=code, max_bad=1), cluster)
    assert result.quarantined().reason[0].startswith("BdbQuit: ")


def test_no_word_of_a_row_is_its_kind(cluster, tmp_path):
    """The dashboard's page shows kinds, and no text of the user's."""
    (tmp_path / "in.csv").write_text("id,a\n1,x\n2,x,y,note: JohnSmith: ill\n3,x\n4,Jane: Doe: x\n")
    code = tmp_path / "mine.py"
    code.write_text(
        "def f(chunk):\n    assert '4' not in chunk.index, 'Jane: Doe\\nMary: ill'\n    return [1] * len(chunk)\n"
    )
    made = dc.plan(
        input=tmp_path / "in.csv",
        output=tmp_path / "run",
        classifier=f"{code}:f",
        max_bad=2,
        block_rows=2,
        chunk_rows=1,
    )
    result = dc.run(made, cluster)
    assert [receipt.first_kind for receipt in result.receipts] == ["malformed", "AssertionError"]
    assert [Finished.of(receipt).kind for receipt in result.receipts] == ["malformed", "AssertionError"]
    assert "\n" not in "".join(result.quarantined().reason)


@pytest.mark.parametrize("name", ["PanicException", "CancelledError"])
def test_a_classifier_that_cannot_be_loaded_says_where(cluster, tmp_path, name):
    code = tmp_path / "mine.py"
    code.write_text(f"class Model:\n    def __init__(self):\n        {RAISE[name]}\n")
    with pytest.raises(dc.errors.UsageError, match=rf"cannot be loaded: {name}: .* \(mine.py:3, in __init__: "):
        dc.run(dc.plan(rows=10, output=tmp_path / "run", classifier=f"{code}:Model"), cluster)


def test_the_place_is_the_innermost_in_the_users_own_code(cluster, tmp_path):
    """Also where pandas raises, deep below it; the traceback is in the error and in the receipt."""
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text("")
    (tmp_path / "pkg/prices.py").write_text("def number(column):\n    return column.astype(float)\n")
    code = tmp_path / "mine.py"
    code.write_text("from pkg import prices\n\n\ndef f(chunk):\n    return prices.number(chunk['price'])\n")
    (tmp_path / "in.csv").write_text("id,price\n" + "1,2.5\n" * 5 + "6,\n")
    options = {"input": tmp_path / "in.csv", "output": tmp_path / "run", "classifier": f"{code}:f"}
    with pytest.raises(TooManyBadRows) as raised:
        dc.run(dc.plan(**options), cluster)
    assert "row 6 of" in raised.value.message
    assert "(prices.py:2, in number: return column.astype(float))" in raised.value.message
    assert 'pd.to_numeric(column, errors="coerce")' in raised.value.hint and "--delimiter" not in raised.value.hint
    assert 'File "mine.py", line 5, in f' in raised.value.details
    assert raised.value.details.splitlines()[-1].startswith("ValueError: could not convert")
    result = dc.run(dc.plan(**options, max_bad=1), cluster)
    assert 'File "mine.py", line 5, in f' in result.receipts[0].first_traceback


def test_the_whole_traceback_is_printed_where_it_is_asked_for(command, tmp_path):
    (tmp_path / "mine.py").write_text("def f(chunk):\n    return chunk['dep_dely']\n")
    options = ["--rows", 20, "--classifier", "mine.py:f", "--output", "run"]
    done = command(*options, check=1)
    assert "KeyError: 'dep_dely' (mine.py:2, in f: return chunk['dep_dely'])" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "dask_classifier", *map(str, options), "--traceback"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert 'Traceback of the classifier (most recent call last):\n  File "mine.py", line 2, in f' in done.stderr
    assert "get_loc" in done.stderr, "the frames of pandas, too"


def test_hints_name_what_the_classifier_was_given(cluster, tmp_path):
    names = [f"c{n}" for n in range(19)]
    (tmp_path / "in.csv").write_text(",".join(["id", *names]) + "\n" + ",".join("1" * 20) + "\n")
    code = tmp_path / "mine.py"
    code.write_text("def f(chunk):\n    return chunk['none']\n")
    options = {"output": tmp_path / "run", "classifier": f"{code}:f"}
    with pytest.raises(WrongAnswer) as raised:
        dc.run(dc.plan(input=tmp_path / "in.csv", **options), cluster)
    assert "index is 'id'" in raised.value.hint and "'c11' and 7 more" in raised.value.hint
    (tmp_path / "semi.csv").write_text("a;b;c\n1;2;3\n")
    with pytest.raises(WrongAnswer) as raised:
        dc.run(dc.plan(input=tmp_path / "semi.csv", **options), cluster)
    assert "index is 'a;b;c', and it has no columns" in raised.value.hint and "--delimiter ';'" in raised.value.hint


NOTEBOOK = """
import io, contextlib
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import dask_classifier as dc")
shell.run_cell("def late(chunk):\\n    return chunk['dep_dely']")
for call in (
    "dc.run(dc.plan(rows=10, output='run', classifier=late), 'inline')",
    "dc.plan(input='none.csv', classifier=late)",
    "from dask_classifier.show.notebook import CellProgress\\nwith CellProgress().shown(): raise KeyboardInterrupt",
):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        shell.run_cell(call)
    print(__import__("json").dumps(shown.getvalue()))
"""


def test_a_notebook_shows_the_sentence_and_the_users_own_frames(tmp_path):
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    wrong, missing, interrupted = map(json.loads, done.stdout.splitlines())
    assert "The classifier raises an exception on every row of the first chunk: KeyError: 'dep_dely'" in wrong
    assert "line 2, in late" in wrong and "Hint: The chunk's index is 'ID'" in wrong
    assert "StorageError: Cannot read" in missing and "none.csv: it does not exist" in missing
    assert "Interrupted: Interrupted: 0 of 0 finished blocks are kept." in interrupted
    for shown in (wrong, missing, interrupted):
        assert "dask_classifier/" not in shown, "no frame of the package"
    assert len(missing.splitlines()) <= 6
