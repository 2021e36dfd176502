"""dask_classifier.yaml, the file of defaults for Dask's configuration, and its schema."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

import dask_classifier

PACKAGE = Path(dask_classifier.__file__).parent
DEFAULTS, SCHEMA = PACKAGE / "dask_classifier.yaml", PACKAGE / "dask_classifier-schema.yaml"


def test_both_files_are_those_of_the_options():
    sys.path.insert(0, str(PACKAGE.parent / "docs"))
    import make_config

    assert DEFAULTS.read_text() == make_config.defaults_text(), "renew it with `make docs`"
    assert SCHEMA.read_text() == make_config.schema_text(), "renew it with `make docs`"


def test_the_defaults_fit_the_schema_and_a_misspelling_does_not():
    schema, defaults = yaml.safe_load(SCHEMA.read_text()), yaml.safe_load(DEFAULTS.read_text())
    jsonschema.validate(defaults, schema)
    assert defaults["dask-classifier"]["chunk-rows"] == 100
    with pytest.raises(jsonschema.ValidationError, match="wokers"):
        jsonschema.validate({"dask-classifier": {"wokers": 4}}, schema)


@pytest.mark.long
def test_a_copy_of_the_file_changes_nothing_until_it_is_edited(command, tmp_path):
    (tmp_path / "config").mkdir()
    copy = Path(shutil.copy(DEFAULTS, tmp_path / "config"))
    env = {"DASK_CONFIG": str(tmp_path / "config")}
    for name, given in (("with", env), ("without", {})):
        command("--rows", 300, "--slowness", 1, "--output", name, check=0, env=given)
        command("plan", "--rows", 300, "--output", "elsewhere", check=0, env=given)
        command("verify", name, check=0, env=given)
    first, second = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("with", "without"))
    assert first["fingerprint"] == second["fingerprint"]
    copy.write_text(copy.read_text().replace("chunk-rows: 100", "chunk-rows: 50"))
    assert "6 of 50 rows" in command("plan", "--rows", 300, "--output", "x", check=0, env=env).stdout


@pytest.mark.parametrize(
    ("words", "environment", "code", "message"),
    [
        (["--version"], {"DASK_CLASSIFIER": "mine.py:f"}, 2, "not settings"),
        (["--rows", 10, "--dashboard-address", "127.0.0.1:abc"], {}, 2, "Cannot start a cluster with its dashboard"),
        (
            ["--rows", 10, "--dashboard-address", "192.0.2.1:8787"],
            {},
            2,
            "Cannot start a cluster with its dashboard",
        ),
        (
            ["--rows", 10, "--output", "run", "--cluster", "tls://127.0.0.1:1"],
            {},
            4,
            "Cannot connect to a Dask cluster at",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_one_sentence(command, words, environment, code, message):
    done = command(*words, check=code, env=environment)
    assert message in done.stderr and done.stderr.count("Error: ") == 1


def test_a_full_disk_behind_the_output_is_one_sentence(tmp_path):
    words = [Path(sys.executable).parent / "dask-classify", "generate", "--rows", "1000000", "-"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["Error: Cannot write the output: No space left on device."]
