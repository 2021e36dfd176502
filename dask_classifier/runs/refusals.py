"""Refuse options that would have no effect, and inputs that a run must not read."""

from typing import Any

from ..errors import UsageError
from ..parts.run_folder import COPIES, RunFolder
from ..rows.frame_input import is_frame
from ..rows.json_lines import JsonLinesFile
from ..rows.layouts import Layout
from ..rows.parquet_files import ParquetFile
from ..rows.source import Source


def refuse_useless(
    input: Any,
    classifier: object,
    layout: Layout,
    *,
    seed: int,
    slowness: object,
    with_file: object,
    infer_types: bool,
) -> None:
    """Raise UsageError for an option that would have no effect."""
    if input is None or is_frame(input):
        rows = "generated rows" if input is None else "a DataFrame"
        _refuse_text_options(layout, rows)
        _refuse_if(layout.typed, "--typed", rows)
        _refuse_if(bool(layout.wanted), "--columns", rows)
        _refuse_if(bool(layout.types), "--dtype", rows)
        _refuse_if(bool(layout.index), "--index", rows)
        _refuse_if(infer_types, "--infer-types", rows)
    _refuse_if(bool(layout.na_values) and not (layout.types or infer_types), "--na-values", "columns of text")
    if input is not None:
        _refuse_if(seed != 0, "--seed", "input files")
    if classifier == "blackbox":
        _refuse_if(bool(with_file), "--with-file", "the classifier blackbox")
    else:
        _refuse_if(str(slowness) != "10", "--slowness", f"the classifier {classifier}")


def refuse_useless_for(source: Source, *, infer_types: bool) -> None:
    """Raise UsageError for an option that has no effect with any of the files."""
    kinds = {type(file) for file in source.files}
    if kinds <= {ParquetFile, JsonLinesFile}:
        _refuse_text_options(source.layout, "Parquet and JSON Lines")
    _refuse_if(bool(source.layout.types) and kinds == {ParquetFile}, "--dtype", "Parquet files")
    _refuse_if(infer_types and kinds == {ParquetFile}, "--infer-types", "Parquet files")
    _refuse_if(infer_types and not source.layout.header_row, "--infer-types", "columns without names")
    _refuse_if(source.layout.typed and ParquetFile not in kinds, "--typed", "files that are not Parquet")


def _refuse_text_options(layout: Layout, about: str) -> None:
    """Raise UsageError for an option that describes CSV."""
    _refuse_if(layout.delimiter != ",", "--delimiter", about)
    _refuse_if(layout.encoding != "utf-8", "--encoding", about)
    _refuse_if(not layout.header_row, "--no-header-row", about)


def _refuse_if(given: bool, option: str, about: str) -> None:
    if given:
        raise UsageError(f"{option} has no effect with {about}.", "Leave it out.")


def refuse_own_input(source: Source, folder: str) -> None:
    """Raise UsageError for an input that is a part, or a piece, of the run itself."""
    for file in source.files:
        name = file.url.removeprefix(f"{folder}/")
        is_inside = name.startswith(("parts/", "quarantine/", f"{COPIES}/")) or RunFolder(folder).is_ours(name)
        if name != file.url and is_inside:
            raise UsageError(f"{file.url} is a part of the run in {folder}.", "Choose another --output.")
