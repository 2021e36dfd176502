"""What Dask and pandas users expect of the Python API."""

import asyncio
import builtins
import inspect
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster

import dask_classifier as dc
from dask_classifier import errors
from dask_classifier.errors import DaskClassifyError, OutputExists, StorageError, UsageError, in_python

LARGE = 9007199254740993  # not a float


def length(chunk):
    return chunk["review"].str.len()


# --- clusters ------------------------------------------------------------------------------------------


def test_without_a_cluster_the_default_client_is_used(tmp_path):
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        (worker,) = cluster.scheduler_info["workers"].values()
        result = dc.run(dc.plan(rows=300, output=tmp_path / "run", slowness=1))
    assert {receipt.worker for receipt in result.receipts} == {str(worker["id"])}


def test_without_a_client_all_cores_are_used(tmp_path):
    result = dc.run(dc.plan(rows=300, output=tmp_path / "run", slowness=1))
    assert os.getpid() not in {receipt.pid for receipt in result.receipts}, "in classifier processes"
    inline = dc.run(dc.plan(rows=300, output=tmp_path / "inline", slowness=1), "inline")
    assert {receipt.pid for receipt in inline.receipts} == {os.getpid()}


def test_dasks_name_for_the_number_of_workers():
    with dc.LocalCluster(n_workers=3, dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        assert sum(client.nthreads().values()) == 3
    with pytest.raises(ValueError, match="workers=1"):
        dc.LocalCluster(n_workers=0)


def test_an_asynchronous_client_is_refused_with_a_sentence(tmp_path):
    async def run():
        async with Client(processes=False, asynchronous=True, dashboard_address=None) as client:
            dc.run(dc.plan(rows=10, output=tmp_path / "run"), client)

    # in a thread of its own: tests in a browser leave an event loop in this one
    with ThreadPoolExecutor(1) as pool, pytest.raises(UsageError, match="An asynchronous Client cannot be used"):
        pool.submit(asyncio.run, run()).result()


# --- calls ---------------------------------------------------------------------------------------------


def test_classify_plans_and_runs_in_one_call(tmp_path):
    (tmp_path / "in.csv").write_text("id,review\n1,good\n2,bad\n")
    result = dc.classify(tmp_path / "in.csv", length, tmp_path / "run", cluster="inline", max_bad=1)
    assert result.to_pandas().CLASSIFICATION.tolist() == [4, 3]


def test_resume_and_overwrite_are_arguments_of_run(tmp_path):
    plan = dc.plan(rows=300, output=tmp_path / "run", slowness=1, block_rows=100)
    dc.run(plan, "inline")
    with pytest.raises(FileExistsError, match="with resume=True, start over with overwrite=True, or"):
        dc.run(plan, "inline")
    (tmp_path / "run/parts/part-00001.json").unlink()
    assert dc.run(plan, "inline", resume=True).manifest["resumed"] == [0, 2]
    assert dc.run(plan, "inline", overwrite=True).manifest["resumed"] == []
    with pytest.raises(ValueError, match="not both"):
        dc.run(plan, "inline", resume=True, overwrite=True)


# --- DataFrames and tables -----------------------------------------------------------------------------


def test_a_dataframe_is_classified_like_a_file(cluster, tmp_path):
    frame = pd.DataFrame(
        {"review": ["good", None, 'a "b"\n'], "n": [1, 2, LARGE]}, index=pd.Index([7, 8, 9], name="id")
    )
    result = dc.classify(frame, length, tmp_path / "run", cluster=cluster)
    assert result.verify().rows == 3
    found = result.to_pandas()
    assert found.index.tolist() == ["7", "8", "9"] and found.index.name == "id", "text, as from CSV"
    assert found.n.tolist() == ["1", "2", str(LARGE)]
    assert found.review.tolist() == ["good", "", 'a "b"\n'] and found.CLASSIFICATION.tolist() == [4, 0, 6]
    assert not list((tmp_path / "run/unpacked").glob("*")), "the run's copy of the input is gone"
    unnamed = dc.classify(frame.reset_index(drop=True), length, tmp_path / "two", cluster="inline")
    assert unnamed.columns == ["index", "review", "n", "CLASSIFICATION"]


def test_an_arrow_table_keeps_its_integers(tmp_path):
    table = pa.table({"id": ["a", "b"], "n": pa.array([LARGE, None]), "review": ["x", "yy"]})
    result = dc.classify(table, length, tmp_path / "run", cluster="inline")
    assert result.to_pandas().n.tolist() == [str(LARGE), ""]


def test_a_run_of_a_dataframe_resumes_with_the_same_frame_only(tmp_path):
    frame = pd.DataFrame({"review": [f"{number}" for number in range(250)]})
    plan = dc.plan(frame, length, tmp_path / "run", block_rows=100)
    whole = dc.run(plan, "inline").verify()
    (tmp_path / "run/parts/part-00001.json").unlink()
    (tmp_path / "run/manifest.json").unlink()
    assert dc.run(plan, "inline", resume=True).verify() == whole
    other = dc.plan(frame.replace("7", "8"), length, tmp_path / "run", block_rows=100)
    with pytest.raises(OutputExists, match="source"):
        dc.run(other, "inline", resume=True)


@pytest.mark.parametrize("wrong", [5, pd.Series([1]), [pd.DataFrame({"a": [1]})], {"a": [1]}])
def test_what_cannot_be_taken_is_a_type_error(wrong, tmp_path):
    with pytest.raises(TypeError, match=r"input is of type \w+\. Give a path, a URL, a glob, .* DataFrame"):
        dc.plan(wrong, length, tmp_path / "run")


def test_an_option_of_files_is_refused_with_a_dataframe(tmp_path):
    with pytest.raises(ValueError, match="delimiter= has no effect with a DataFrame"):
        dc.plan(pd.DataFrame({"review": ["x"]}), length, tmp_path / "run", delimiter=";")


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": ["x\ry", "z", "w\r"]}),
        pd.DataFrame({"a": ["x\r\ny", ' "', ""]}),
        pd.DataFrame(index=pd.Index(["x", "", " ", "y"], name="id")),
        pa.table({"a": ["x", " ", "", "\t", None, "y"]}),
        pd.DataFrame([[1, 2], [3, 4]], columns=pd.MultiIndex.from_tuples([("b", "c"), ("b", "d")])),
        pd.DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([("k", 1), ("k", 2)], names=["x", "y"])),
        pd.DataFrame({"a": []}),
    ],
    ids=["CR", "CRLF and quotes", "index alone", "blank values", "column levels", "index levels", "no rows"],
)
def test_no_row_of_a_dataframe_is_lost_or_doubled(frame, tmp_path):
    result = dc.classify(frame, lambda chunk: [len(chunk)] * len(chunk), tmp_path / "run", cluster="inline")
    assert result.verify().rows == len(frame)
    if isinstance(frame, pd.DataFrame) and len(frame) and "a" in frame and frame.index.nlevels == 1:
        assert result.to_pandas().a.tolist() == frame.a.tolist()


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (pa.table({"id": [1], "a": [[1, 2]]}), "nested"),
        (pa.table({"id": [1], "a": [b"x"]}), "nested"),
        (pd.DataFrame({"a": [[1, 2]]}), "nested"),
        (pd.DataFrame({"a": [1]}, index=pd.Index([1], name="a")), "have the same name"),
    ],
)
def test_a_dataframe_that_is_no_table_of_text_is_refused(frame, why, tmp_path):
    with pytest.raises(UsageError, match=why):
        dc.plan(frame, length, tmp_path / "run")


def test_the_rows_of_a_dataframe_do_not_travel(tmp_path):
    plan = dc.plan(pd.DataFrame({"review": ["secret"]}), length, tmp_path / "run")
    assert b"secret" not in pickle.dumps(plan.source)
    with pytest.raises(errors.SourceError, match="its plan was copied or pickled"):
        dc.run(pickle.loads(pickle.dumps(plan)), "inline")


def test_an_empty_list_of_files_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="list of input files is empty"):
        dc.plan([], length, tmp_path / "run")


# --- errors --------------------------------------------------------------------------------------------


def test_errors_are_built_in_kinds_and_survive_pickling():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DaskClassifyError)]
    for kind in kinds:
        error = pickle.loads(pickle.dumps(kind("message", "hint").with_details("details")))
        assert (error.message, error.hint, error.details, str(error)) == ("message", "hint", "details", "message\nhint")
        drawn = next(line for line in errors.__doc__.splitlines() if f" {kind.__name__} " in line).split()
        name = next((word for word in drawn if word in vars(builtins)), None)
        assert name is None or issubclass(kind, getattr(builtins, name)), kind
    assert issubclass(UsageError, ValueError) and issubclass(StorageError, OSError)
    assert StorageError("message", "hint").errno is None


@pytest.mark.parametrize(
    "command, python",
    [
        ("Allow more, such as --max-bad 10, with --resume.", "Allow more, such as max_bad=10, with resume=True."),
        ("Check --delimiter and --encoding.", "Check delimiter= and encoding=."),
        ("Leave --block-timeout out, or --cluster inline.", 'Leave block_timeout= out, or cluster="inline".'),
        ("Give --rows 10M or --input FILE.", 'Give rows="10M" or input=FILE.'),
        ("Check the delimiter: --delimiter ';'.", "Check the delimiter: delimiter=';'."),
        ("Run `dask-classify doctor --policy`, or --spot.", "Run `dask-classify doctor --policy`, or spot=True."),
        ("If it is dead: dask-classify reap --region eu --yes", "If it is dead: dask-classify reap --region eu --yes"),
        ("Cannot read /data/my--output.csv.", "Cannot read /data/my--output.csv."),
        ("Bad row: '7,--output x'.", "Bad row: '7,--output x'."),
        ("The --unknown option and --output-of.", "The --unknown option and --output-of."),
    ],
)
def test_errors_in_python_speak_python(command, python):
    assert in_python(command) == python
    assert str(UsageError("No.", command)) == f"No.\n{python}" and UsageError("No.", command).hint == command


# --- estimates and notebooks ---------------------------------------------------------------------------


def test_an_estimate_in_this_process(tmp_path):
    plan = dc.plan(rows="10M", output=tmp_path / "run", slowness=1)
    estimate = dc.estimate(plan, "inline", sample=50)
    here = estimate.choices[0]
    assert (estimate.rows, here.processes, here.where) == (10_000_000, 1, "local")
    assert here.seconds.mid == pytest.approx(10_000 * estimate.ms_per_row, rel=0.1)
    assert "10,000,000 rows, " in repr(estimate) and "ms per row" in estimate._repr_html_()
    assert not (tmp_path / "run").exists()


def test_a_command_in_a_message_does_not_hide_the_options_of_its_hint():
    error = UsageError("There is no run in /mnt/aws data/x.", "Use --overwrite.")
    assert str(error) == "There is no run in /mnt/aws data/x.\nUse overwrite=True."


def test_python_knows_the_options_of_the_command():
    from dask_classifier.cli.app import app

    names = {name for option in app.commands["run"].params for name in (*option.opts, *option.secondary_opts)}
    only_here = {
        "--help",
        "-h",
        "--detach",
        "--json",
        "--quiet",
        "-q",
        "--traceback",
        "--profile",
        "--dashboard-address",
        "--yes",
        "--at",
        "--log-json",
    }
    for name in names - only_here:
        if name != "--header-row":
            assert in_python(f"Use {name}.") != f"Use {name}.", name
