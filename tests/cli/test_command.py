"""The command as a user types it: words, exit codes, what goes where."""

import contextlib
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from dask.system import CPU_COUNT
from reference import reference

import dask_classifier as dc
from dask_classifier import generate
from dask_classifier.show import report


def test_options_alone_are_a_run(command, tmp_path):
    done = command("--rows", "0.3k", "--workers", 2, "--slowness", 1, check=0)
    (run,) = (tmp_path / "runs").iterdir()
    assert dc.open_run(str(run)).rows == 300
    assert done.stdout == "", "talk goes to standard error"
    for text in (
        "into runs/",
        "dashboard: http://127.0.0.1:",
        "rows in",
        "rows out",
        "rows quarantined",
        "rows/s",
        "rows of process",
        "First rows:",
        "ID,SKU,FLUX",
    ):
        assert text in done.stderr


def test_10m_rows_on_16_workers_is_accepted_word_for_word(tmp_path):
    """It would take five hours here: it is let begin, and interrupted once 16 processes work."""
    import signal
    import subprocess
    import sys
    import time
    from pathlib import Path

    import psutil

    def is_busy(child):
        with contextlib.suppress(psutil.NoSuchProcess):
            return child.cpu_times().user > 0.3
        return False

    log = (tmp_path / "log").open("w")
    command = [Path(sys.executable).parent / "dask-classify", "--rows", "10M", "--workers", "16"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 600
    busy = []
    while len(busy) < 16 and time.monotonic() < deadline:
        time.sleep(0.5)
        busy = [child for child in psutil.Process(process.pid).children(recursive=True) if is_busy(child)]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    text = (tmp_path / "log").read_text()
    assert len(busy) >= 16
    assert "10,000,000 generated rows" in text and "10,000,000 rows in" in text
    assert "16 processes share" in text if CPU_COUNT < 16 else "share" not in text


@pytest.mark.long
def test_plain_lines_and_quiet(command, tmp_path, classifiers):
    args = ["--rows", 20_000, "--workers", 1, "--classifier", classifiers("slow")]
    talk = command(*args, "--output", "a", check=0).stderr
    lines = [line for line in talk.splitlines() if " rows/s" in line and line.endswith(" blocks")]
    assert lines and re.match(
        r"\d\d:\d\d:\d\d  \d+%  [\d,]+/20,000 rows  [\d,]+ rows/s  .* left  \d+/\d+ blocks", lines[-1]
    )
    assert all(len(line) <= 80 for line in lines)
    assert "\x1b[" not in talk, "no colours or cursor movements where there is no terminal"
    assert command("--rows", 100, "--slowness", 1, "--output", "b", "-q", check=0).stderr == ""


def test_a_terminal_shows_a_bar(tmp_path, classifiers):
    """A real pseudo-terminal, as a person has."""
    import pty
    import subprocess
    import sys
    from pathlib import Path

    master, slave = pty.openpty()
    command = [
        Path(sys.executable).parent / "dask-classify",
        "--rows",
        "6000",
        "--classifier",
        classifiers("slow"),
        "--workers",
        "1",
    ]
    process = subprocess.Popen([*command, "--output", "run"], cwd=tmp_path, stderr=slave, stdout=slave, stdin=slave)
    os.close(slave)
    seen = b""
    try:
        while chunk := os.read(master, 65536):
            seen += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    assert process.wait(300) == 0
    assert "━".encode() in seen and b"rows/s" in seen and b"process " in seen


def test_json_for_programs(command):
    done = command("--rows", 200, "--slowness", 1, "--output", "run", "--json", check=0)
    told = json.loads(done.stdout)
    assert (told["rows_in"], told["rows_out"], told["bad_rows"]) == (200, 200, 0)
    assert told["output"].endswith("/run") and "parts" not in told
    assert json.loads(command("verify", "run", "--json", check=0).stdout)["rows"] == 200


DEMO = ["--classifier", "blackbox"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--rows", "1x"], "'1x' is not a number of rows"),
        (["--rows", "10", "--input", "x.csv"], "not both"),
        (["--input", "in.csv"], "No classifier is given for the input."),
        (["--rows", "1,5M"], "'1,5M' is not a number of rows"),
        (["--rows", "10", "--block-timeout", "1e400"], "'1e400' is not a time"),
        (["--workers", "2"], "Say what to classify"),
        (["--rows", "10", "--resume", "--overwrite", "--output", "x"], "not both"),
        (["--rows", "10", "--resume"], "run to resume is not given"),
        (["--rows", "10", "--workers", "0"], "0 is not in the range"),
        (["--rows", "10", "--chunk-rows", "0"], "at least 1"),
        (["--rows", "10", "--block-rows", "many"], "many"),
        (["--rows", "10", "--max-bad", "200%"], "is not a percentage"),
        (["--rows", "10", "--cluster", "nowhere"], "is not a cluster"),
        (["--rows", "10", "--cluster", "inline", "--workers", "3"], "has no effect"),
        (["--rows", "10", "--cluster", "tcp://127.0.0.1:1"], "needs an output"),
        (["--rows", "10", "--output-format", "xlsx"], "is not an output format"),
        (["--rows", "10", "--classifier", "nope"], "is not a classifier"),
        (["--rows", "10", "--block-timeout", "soon"], "is not a time"),
        ([*DEMO, "--input", "in.csv", "--delimiter", ";;"], "is not a valid delimiter"),
        ([*DEMO, "--input", "in.csv", "--encoding", "klingon"], "is not a text encoding"),
        ([*DEMO, "--input", "in.csv", "--input", "in.csv"], "named twice"),
        ([*DEMO, "--input", "in.csv", "--seed", "3"], "--seed has no effect with input files"),
        (["--rows", "10", "--delimiter", ";"], "--delimiter has no effect with generated rows"),
        (["--rows", "10", "--encoding", "utf-16"], "--encoding has no effect with generated rows"),
        (["--rows", "10", "--no-header-row"], "--no-header-row has no effect with generated rows"),
        (["--rows", "10", "--block-rows", "0"], "'0' is not a number of rows of at least 1."),
        (["--rows", "10", "--cluster", "inline", "--block-timeout", "3s"], "cannot be timed out"),
        ([*DEMO, "--input", "in.csv", "--encoding", "undefined"], "is not a text encoding"),
        (["--no-such-option"], "No such option"),
        (["no-such-command"], "No such command"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2_and_writes_nothing(command, tmp_path, args, message):
    (tmp_path / "in.csv").write_text("id,a\n1,x\n")
    done = command(*args, check=2)
    assert message in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*DEMO, "--input", "none.csv"], "it does not exist"),
        ([*DEMO, "--input", "none-*.csv"], "No file matches"),
        ([*DEMO, "--input", "/dev/null"], "it is not a file"),
        (
            [*DEMO, "--input", "in.csv", "--encoding", "utf-16"],
            "is not in the encoding utf-16: UTF-16 stream does not start",
        ),
        (["--rows", "10", "--slowness", "1", "--output", "in.csv/run"], "Not a directory"),
        (["verify", "."], "There is no run"),
        (["verify", "nowhere"], "There is no run"),
    ],
)
def test_what_cannot_be_read_or_written_is_one_sentence_and_exit_code_1(command, tmp_path, args, message):
    (tmp_path / "in.csv").write_text("id,a\n1,x\n")
    done = command(*args, check=1)
    assert message in done.stderr and "Hint:" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


@pytest.mark.long
def test_exit_codes_3_and_4(command, tmp_path, classifiers):
    (tmp_path / "in.csv").write_text("id,a\n1,x\n2,BAD\n")
    done = command("--input", "in.csv", "--classifier", classifiers("fails_on_bad"), "--output", "run", check=3)
    assert "row 2 of" in done.stderr and "--max-bad" in done.stderr
    done = command("--rows", 10, "--cluster", "tcp://127.0.0.1:1", "--output", "run", check=4)
    assert "Cannot connect to a Dask cluster at tcp://127.0.0.1:1" in done.stderr


def test_bare_command_prints_help(command):
    done = command()
    assert "Usage: dask-classify" in done.stdout + done.stderr
    assert "--max-bad" in command("run", "--help", check=0).stdout
    assert max(map(len, command("run", "--help", check=0, env={"COLUMNS": "80"}).stdout.splitlines())) <= 80


@pytest.mark.long
def test_configuration_option_over_environment_over_file(command, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/mine.yaml").write_text(
        "dask-classifier:\n  rows: 300\n  slowness: 1\n  output: from-file\n  workers: 1\n"
    )
    env = {"DASK_CONFIG": str(tmp_path / "config")}
    command("run", check=0, env=env)
    assert dc.open_run(tmp_path / "from-file").rows == 300
    env["DASK_CLASSIFIER__OUTPUT"] = "from-environment"
    env["DASK_CLASSIFIER__ROWS"] = "200"
    command("run", check=0, env=env)
    assert dc.open_run(tmp_path / "from-environment").rows == 200
    command("run", "--output", "from-option", "--chunk-rows", "10", check=0, env=env)
    assert dc.open_run(tmp_path / "from-option").rows == 200
    (tmp_path / "in.csv").write_text("id,a\n1,x\n")
    command(
        "--input", "in.csv", *DEMO, "--output", "typed-input", check=0, env=env
    )  # what is typed comes before configured rows
    assert dc.open_run(tmp_path / "typed-input").rows == 1
    env = {"DASK_CLASSIFIER__INPUT": "in.csv", "DASK_CLASSIFIER__CLASSIFIER": "blackbox"}
    command("run", "--output", "from-environment-too", check=0, env=env)
    done = command("run", check=2, env=env | {"DASK_CLASSIFIER__WORKRES": "3"})
    assert "dask-classifier.workres" in done.stderr


@pytest.mark.long
def test_generate_fetch_and_formats(command, tmp_path, classifiers):
    text = b"".join(generate.csv_stream(2, 500))
    command("generate", "--rows", 500, "--seed", 2, "a.csv", check=0)
    command("generate", "--rows", 500, "--seed", 2, "a.csv.gz", check=0)
    command("generate", "--rows", 500, "--seed", 2, "a.csv.zst", check=0)
    assert (tmp_path / "a.csv").read_bytes() == text
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == text
    assert (
        zstandard.ZstdDecompressor()
        .stream_reader((tmp_path / "a.csv.zst").read_bytes(), read_across_frames=True)
        .read()
        == text
    )
    assert command("generate", "--rows", 500, "--seed", 2, "-", check=0).stdout.encode() == text
    command("generate", "--rows", 5, "a.csv", check=2)
    assert (tmp_path / "a.csv").read_bytes() == text
    import classifiers as known

    expected = reference(text, known.lengths)
    for source in (["--rows", 500, "--seed", 2], ["--input", "a.csv"], ["--input", "a.csv.gz"]):
        command(*source, "--classifier", classifiers("lengths"), "--output", "run", "--overwrite", check=0)
        command("fetch", "run", "out.csv", "--no-header", "--overwrite", check=0)
        assert (tmp_path / "out.csv").read_bytes() == expected
    names = b"ID,SKU,FLUX,MANUFACTURER_NAME,DESCRIPTION,LENGTH,TEXT\n"
    command("fetch", "run", "out.csv.gz", check=0)
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()) == names + expected
    assert command("fetch", "run", "-", "--header", check=0).stdout.encode() == names + expected
    assert command("fetch", "run", "-", check=0).stdout.encode() == expected
    command("fetch", "run", "out.csv", check=2)
    command("fetch", "run", "out.parquet", check=0)
    import pandas as pd

    assert len(pd.read_parquet(tmp_path / "out.parquet")) == 500


def test_plan_touches_nothing(command, tmp_path):
    (tmp_path / "in.csv").write_bytes(b"".join(generate.csv_stream(0, 30_000)))
    done = command("plan", "--rows", "10M", "--workers", 16, "--sample", 0, check=0)
    assert "10,000,000" in done.stdout and "100,000 of 100 rows" in done.stdout and "at least 128" in done.stdout
    done = command("plan", "--rows", "10M", "--block-rows", 5000, "--sample", 0, "--json", check=0)
    outlined = json.loads(done.stdout)
    assert (outlined["rows"], outlined["rows_precision"]) == (10_000_000, "exact")
    assert (outlined["blocks"], outlined["block_rows"], outlined["chunks"]) == (2000, 5000, 100_000)
    outlined = json.loads(command("plan", "--input", "in.csv", *DEMO, "--sample", 0, "--json", check=0).stdout)
    assert outlined["rows_precision"] == "about" and abs(outlined["rows"] - 30_000) < 1500
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_plan_estimates_and_writes_nothing(command, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text("import time\ndef f(df):\n    time.sleep(0.002 * len(df))\n    return [0] * len(df)\n")
    words = ["plan", "--rows", "1M", "--classifier", "mine.py:f"]
    planned = json.loads(command(*words, "--workers", 10, "--json", check=0).stdout)
    here = planned["options"][0]
    assert (here["where"], here["processes"], here["dollars"]) == ("local", 10, 0) and planned["ms_per_row"] >= 2
    assert here["seconds"]["mid"] > 100 * planned["ms_per_row"], "a million rows on ten processes, and the start"
    code.write_text("def f(df):\n    return 1 / 0\n")
    assert "raises an exception on every row" in command(*words, check=1).stderr
    code.write_text("import os\ndef f(df):\n    os._exit(3)\n")
    assert "exited on the first rows" in command(*words, check=1).stderr
    assert "Cannot estimate" in command("plan", "--rows", "1M", "--cluster", "tcp://127.0.0.1:1", check=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_a_plan_with_an_estimate_has_one_number_of_blocks(command, tmp_path):
    rows = "".join(f"{number},{'x' * (number % 50)}\n" for number in range(1730))
    (tmp_path / "in.csv").write_text("id,text\n" + rows)
    (tmp_path / "mine.py").write_text(
        "import time\ndef f(df):\n    time.sleep(0.005 * len(df))\n    return [0] * len(df)\n"
    )
    words = ["plan", "--input", "in.csv", "--classifier", "mine.py:f", "--workers", 2, "--sample", 50]
    planned = json.loads(command(*words, "--json", check=0).stdout)
    assert (planned["rows"], planned["chunks"], planned["blocks"]) == (1730, 18, planned["options"][0]["blocks"])
    assert planned["rows_precision"] == planned["blocks_precision"] == "exact"
    assert "chunks       18 of 100 rows\n" in command(*words, check=0).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", 100, "--budget", "3"], "--budget has no effect with the cluster local"),
        (["--rows", 100, "--budget", "3", "--finish-in", "1h", "--cluster", "local"], "--budget has no effect"),
        (["plan", "--from", "run", "--finish-in", "10s"], "--finish-in has no effect with --from"),
        (["plan", "--from", "run", "--input", "nope.csv", "--json"], "--input has no effect with --from"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(command, words, message):
    assert message in command(*words, check=2).stderr


def test_a_run_with_a_time_ends_with_a_verdict(command):
    words = ["--rows", 300, "--slowness", 1, "--workers", 1]
    assert re.search(r"Finished \S+ before \d\d:\d\d:\d\d\.", command(*words, "--finish-in", "1h", check=0).stderr)
    assert re.search(r"Finished \S+ after \d\d:\d\d:\d\d\.", command(*words, "--finish-in", "0.1s", check=0).stderr)


def test_python_m(tmp_path):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "dask_classifier", "--version"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0 and dc.__version__ in done.stdout


def test_a_run_in_the_background_of_a_script_is_not_taken_for_interrupted(tmp_path):
    """A shell starts what ends in & with SIGINT ignored."""
    program = Path(sys.executable).parent / "dask-classify"
    script = f"{program} --rows 300 --workers 1 --block-rows 100 --output run & wait $!"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "manifest.json").exists()


def test_leaving_the_debugger_ends_an_inline_run(tmp_path):
    (tmp_path / "mine.py").write_text("def f(df):\n    breakpoint()\n    return [0] * len(df)\n")
    words = ["-m", "dask_classifier", "--rows", "300", "--cluster", "inline", "--classifier", "mine.py:f"]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, input="q\n" * 50, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 130 and done.stdout.count("(Pdb)") == 1, done.stderr
    assert "Interrupted" in done.stderr


def test_a_suffix_that_would_lie_is_refused(command, tmp_path):
    command("--rows", 10, "--slowness", 1, "--output", "run", check=0)
    for name in ("out.csv.bz2", "out.XLSX"):
        assert "is not a supported format" in command("fetch", "run", name, check=2).stderr
    command("fetch", "run", "out.CSV.GZ", "--quiet", check=0)
    assert gzip.decompress((tmp_path / "out.CSV.GZ").read_bytes()).count(b"\n") == 1 + 10
    assert not list(tmp_path.glob("out*bz2")) and not list(tmp_path.glob("out*XLSX"))


@pytest.mark.long
@pytest.mark.parametrize("output_format", ["csv.gz", "csv.zst", "parquet"])
@pytest.mark.parametrize("in_parts", [False, True])
def test_a_fetched_file_has_one_header_line_whatever_the_run_has(command, tmp_path, output_format, in_parts):
    """Also where the first block has bad rows only, so that no part has the header that was asked for."""
    (tmp_path / "mine.py").write_text("def f(df):\n    assert int(df.index[0]) >= 100\n    return df.assign(C='x,y')\n")
    options = ["--classifier", "mine.py:f", "--block-rows", 100, "--max-bad", 100, "--output-format", output_format]
    command("--rows", 300, *options, "--output", "run", *["--header"] * in_parts, check=0)
    names = "ID,SKU,FLUX,MANUFACTURER_NAME,DESCRIPTION,C"
    for file in ("out.csv", "out.csv.gz"):
        command("fetch", "run", file, check=0)
        data = (tmp_path / file).read_bytes()
        lines = (gzip.decompress(data) if file.endswith(".gz") else data).decode().splitlines()
        assert lines[0] == names and len(lines) == 201
        assert not any(line.startswith("ID,") for line in lines[1:])
    plain = command("fetch", "run", "-", check=0).stdout.splitlines()
    assert plain == lines[0 if in_parts else 1 :]
    assert command("fetch", "run", "-", "--no-header", check=0).stdout.splitlines() == lines[1:]


@pytest.mark.parametrize("name", ["x.tsv", "x.json", "x.tsv.gz", "x.parquet.gz", "x.feather", "x.JSONL"])
def test_fetch_writes_no_csv_under_the_name_of_another_format(command, tmp_path, name):
    command("--rows", 10, "--slowness", 1, "--output", "run", check=0)
    assert "is not a supported format" in command("fetch", "run", name, check=2).stderr
    assert not (tmp_path / name).exists()


@pytest.mark.long
def test_input_of_another_format_is_recognized_by_its_first_bytes(command, tmp_path):
    import io
    import zipfile

    import pandas as pd

    frame, packed = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in.csv", "a,b\n1,x\n")
    given = {"a Parquet file": frame.to_parquet(), "a ZIP archive": packed.getvalue()}
    frame.to_feather(tmp_path / "frame.arrow")
    frame.to_orc(tmp_path / "frame.orc")
    given |= {"an Arrow or Feather file": (tmp_path / "frame.arrow").read_bytes()}
    given |= {"an ORC file": (tmp_path / "frame.orc").read_bytes()}
    for what, data in given.items():
        (tmp_path / "in.csv").write_bytes(data)
        done = command("--input", "in.csv", *DEMO, check=1)
        assert f"is {what}" in done.stderr and "Hint:" in done.stderr
        assert done.stderr.isprintable() or set(done.stderr) - set(filter(str.isprintable, done.stderr)) == {"\n"}
    (tmp_path / "in.csv").write_text("ORCID,PAR1\n1,x\n")
    command("--input", "in.csv", *DEMO, "--output", "run", check=0)
    (tmp_path / "in.csv").write_bytes(gzip.compress(b"a,b\n1,x\n"))
    command("--input", "in.csv", *DEMO, "--output", "packed", check=0)


@pytest.mark.long
def test_plan_says_the_blocks_that_the_run_makes(command):
    options = ["--rows", "10k", "--block-rows", 250, "--slowness", 1]
    outlined = json.loads(command("plan", *options, "--json", check=0).stdout)
    command(*options, "--output", "run", check=0)
    manifest = json.loads(command(*options, "--output", "run", "--resume", "--json", check=0).stdout)
    assert (outlined["blocks"], outlined["block_rows"], outlined["blocks_precision"]) == (34, 300, "exact")
    assert json.loads(command("verify", "run", "--json", check=0).stdout)["parts"] == 34
    assert manifest["rows_out"] == 10_000


def test_a_malformed_configuration_is_one_sentence(command, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/mine.yaml").write_text("dask-classifier: {rows: 300\n")
    done = command("--rows", 10, check=2, env={"DASK_CONFIG": str(tmp_path / "config")})
    assert "Dask's configuration cannot be read: " in done.stderr and "mine.yaml" in done.stderr
    assert "Hint: Correct this YAML file" in done.stderr and len(done.stderr.splitlines()) == 2


def test_a_name_with_two_colons_is_a_name(command, tmp_path):
    (tmp_path / "a::b.csv").write_text("id,a\n1,x\n")
    command("--input", "a::b.csv", *DEMO, "--output", "run::1", check=0)
    assert json.loads(command("verify", "run::1", "--json", check=0).stdout)["rows"] == 1
    assert (tmp_path / "run::1/manifest.json").exists()


# --- what is wrong outside the program -----------------------------------------------------------------


@pytest.mark.parametrize("classifier", [":f", "..:f", ".:f"])
def test_a_classifier_without_a_module(command, classifier):
    done = command("--rows", 10, "--classifier", classifier, "--output", "run", check=2)
    assert "is not a classifier" in done.stderr


def test_a_classifier_that_imports_from_a_folder_that_is_no_package(command, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/helper.py").write_text("VALUE = 1\n")
    (tmp_path / "mine.py").write_text("from parts.helper import VALUE\n\ndef f(chunk):\n    return chunk['SKU']\n")
    done = command("--rows", 10, "--classifier", "mine.py:f", "--output", "run", check=2)
    assert "imports from a folder that has no __init__.py" in done.stderr and "Traceback" not in done.stderr


def test_a_package_that_cannot_be_imported(command, tmp_path):
    (tmp_path / "site/broken").mkdir(parents=True)
    (tmp_path / "site/broken/__init__.py").write_text("raise RuntimeError('no licence')\n")
    (tmp_path / "site/broken/part.py").write_text("def f(chunk):\n    return chunk\n")
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    done = command("--rows", 10, "--classifier", "broken.part:f", "--output", "run", check=2, env=environment)
    assert "Cannot import the package 'broken' of the classifier" in done.stderr and "no licence" in done.stderr


@pytest.mark.parametrize("output", ["/proc/run", "/dev/null/run"])
def test_an_output_where_no_folder_can_be(command, output):
    done = command("--rows", 10, "--slowness", 1, "--output", output, check=1)
    assert "Error: Cannot" in done.stderr and "Traceback" not in done.stderr


def test_a_name_in_a_configuration_that_is_no_text(command, tmp_path):
    """YAML takes yes, no, on and off for values."""
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask/mine.yaml").write_text("dask-classifier:\n  yes: true\n")
    done = command("--rows", 10, check=2, env={"DASK_CONFIG": str(tmp_path / "dask")})
    assert "Dask's configuration cannot be read: a name in it is not text" in done.stderr


@pytest.mark.parametrize(
    ("name", "environment", "message"),
    [
        ("s3://bucket/in.csv", {"AWS_ENDPOINT_URL": "minio:9000"}, "Invalid endpoint: minio:9000"),
        ("s3://bucket/in.csv", {"AWS_DEFAULT_REGION": "us east 1"}, "Cannot list s3://bucket/in.csv"),
        ("s3://", {}, "Cannot "),
        ("ftp://localhost:1/in.csv", {}, "Cannot use ftp://localhost:1/in.csv"),
    ],
)
def test_addresses_that_cannot_be(command, name, environment, message):
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = command("--input", name, "--classifier", "blackbox", "--output", "run", check=1, env=environment | keys)
    assert message in done.stderr and "Hint: " in done.stderr and "Traceback" not in done.stderr


def test_an_address_of_aws_that_cannot_be(command):
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    done = command("status", check=4, env=keys | {"AWS_ENDPOINT_URL": "localhost:9"})
    assert "Invalid endpoint: localhost:9" in done.stderr and "AWS_ENDPOINT_URL" in done.stderr


def test_a_manifest_that_is_none(command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/manifest.json").write_text('{"format": 1}')
    for words in (["verify", "run"], ["report", "run"]):
        done = command(*words, check=1)
        assert "manifest.json of " in done.stderr and "is damaged" in done.stderr
    (tmp_path / "runs/07").mkdir(parents=True)
    (tmp_path / "runs/07/manifest.json").write_text('{"format": 1, "parts": [], "rows_in": 1, "rows_out": 1}')
    (tmp_path / "runs/07/plan.json").write_text('{"format": 1}')
    span = ["--since", "2026-11-26T07", "--until", "2026-11-26T08"]
    assert command("ledger", "runs/{hour}", *span, check=0).stdout.splitlines()[0].endswith(" ~")


def test_a_report_with_a_name_that_is_no_text():
    assert report.encoded("in-\udcff.csv") == b"in-\\udcff.csv"
