"""Kinds of inputs: the interface, and one that is not of this package."""

import inspect

import pytest
from number_lines import Numbers

import dask_classifier as dc
from dask_classifier.errors import OutputExists, SourceError
from dask_classifier.rows import inputs
from dask_classifier.rows.frame_input import FrameInput
from dask_classifier.rows.generated import GeneratedRows
from dask_classifier.rows.source import InputFile


@pytest.fixture
def numbers(monkeypatch):
    """The kind is registered for the test."""
    monkeypatch.setattr(inputs, "KINDS", list(inputs.KINDS))
    monkeypatch.setattr(inputs, "FILE_KINDS", list(inputs.FILE_KINDS))
    inputs.register(Numbers)


def double(chunk):
    return chunk["square"].astype(int) * 2


def test_each_kind_implements_all_of_the_interface():
    for kind in (*inputs.FILE_KINDS, GeneratedRows, FrameInput, Numbers):
        assert issubclass(kind, InputFile) and not inspect.isabstract(kind)


def test_a_kind_that_is_registered_from_outside(numbers, cluster, tmp_path, run_bytes):
    """Alone, beside a CSV file with the same columns, in classifier processes, and resumed."""
    (tmp_path / "more.csv").write_text("number,square\n7,49\n")
    options = {"input": ["numbers:1234", str(tmp_path / "more.csv")], "classifier": double, "block_rows": 100}
    plan = dc.plan(**options, output=tmp_path / "run")
    assert "2 files" in repr(plan)
    result = dc.run(plan, cluster)
    assert result.verify().rows == 1235
    expected = "".join(f"{n},{n**2},{2 * n**2}\n" for n in [*range(1234), 7]).encode()
    assert run_bytes(tmp_path / "run") == expected
    (tmp_path / "run/parts/part-00003.json").unlink()
    dc.run(dc.plan(**options, output=tmp_path / "run", resume=True), cluster).verify()
    assert run_bytes(tmp_path / "run") == expected


def test_resuming_with_another_input_of_the_kind_names_both(numbers, tmp_path):
    options = {"output": tmp_path / "run", "classifier": double, "resume": True}
    dc.run(dc.plan("numbers:100", **options), "inline")
    with pytest.raises(OutputExists, match="source was numbers:100 and is now numbers:200"):
        dc.run(dc.plan("numbers:200", **options), "inline")


def test_its_own_error_for_a_wrong_name(numbers, tmp_path):
    with pytest.raises(SourceError, match="numbers:many has no number of rows"):
        dc.plan(input="numbers:many", output=tmp_path / "run", classifier=double)


def test_without_it_the_name_is_a_file(tmp_path):
    with pytest.raises(dc.errors.StorageError, match="does not exist"):
        dc.plan(input="numbers:10", output=tmp_path / "run", classifier=double)
