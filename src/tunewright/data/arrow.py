"""Rows out of Arrow tables: Parquet files and `datasets.Dataset`, a thousand at a time.

A ClassLabel, stored as an integer with its names in the schema, becomes its name; -1 (no label) becomes None. Images,
audio and the like stay as stored: nothing is decoded, and nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from tunewright.data.examples import Row
from tunewright.errors import DataError

if TYPE_CHECKING:
    import datasets
    import pyarrow
    import pyarrow.parquet

_ROWS_AT_ONCE = 1000
# Without these two pyarrow holds the whole columns of a row group, often a million rows, in memory.
_STREAMED: dict[str, Any] = {"pre_buffer": False, "buffer_size": 2**20}

ClassNames = Mapping[str, list[str]]  # column -> names by index


def parquet_rows(stream: IO[bytes], name: str) -> Iterator[Row]:
    """One row per record; `where` is its 1-based number, for Parquet has no lines."""
    file = _open_parquet(stream, name)
    names = class_names(_stored_features(file.schema_arrow))
    for position, values in enumerate(_parquet_values(file, name)):
        where = f"{name}:{position + 1}"
        yield Row(_named(values, names, where), where, position)


def dataset_values(dataset: datasets.Dataset, name: str) -> Iterator[dict[str, Any]]:
    """The records of a `datasets.Dataset`, as its Arrow table holds them."""
    described: Any = dataset.features.to_dict()
    names = class_names(described)
    tables: Any = dataset.with_format("arrow")
    for table in tables.iter(batch_size=_ROWS_AT_ONCE):
        for values in table.to_pylist():
            yield _named(values, names, name)


def class_names(features: Mapping[str, Any]) -> ClassNames:
    """Columns that are a ClassLabel, or a list of one, in the description that `datasets` writes of its features."""
    found = {}
    for column, feature in features.items():
        inner = feature[0] if isinstance(feature, list) and feature else feature
        if isinstance(inner, dict):
            inner = inner.get("feature", inner)
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
            found[column] = [str(name) for name in inner["names"]]
    return found


def _open_parquet(stream: IO[bytes], name: str) -> pyarrow.parquet.ParquetFile:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(stream, page_checksum_verification=True, **_STREAMED)
        columns = file.schema_arrow.names
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _damaged(error, name) from None
    for column in columns:
        if columns.count(column) > 1:
            raise DataError(f'two columns are called "{column}"; rename one of them', where=name, field=column)
    return file


def _parquet_values(file: pyarrow.parquet.ParquetFile, name: str) -> Iterator[dict[str, Any]]:
    import pyarrow

    try:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
            yield from batch.to_pylist()
    # UnicodeDecodeError and ArrowInvalid are ValueErrors; damaged pages also surface as OSError.
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _damaged(error, name) from None


def _damaged(error: Exception, name: str) -> DataError:
    reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return DataError(
        f"the Parquet data is damaged or not readable; copy or write the file again ({reason})", where=name
    )


def _stored_features(schema: pyarrow.Schema) -> dict[str, Any]:
    """What `datasets` wrote of its features into this file, if it wrote it."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(described["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return {}


def _named(values: dict[str, Any], names: ClassNames, where: str) -> dict[str, Any]:
    for column, words in names.items():
        if column in values:
            values[column] = _name(values[column], words, where, column)
    return values


def _name(value: Any, words: list[str], where: str, column: str) -> Any:
    if isinstance(value, list):
        return [_name(inner, words, where, column) for inner in value]
    if value is None or value == -1:
        return None
    if not isinstance(value, int):
        return value
    if value >= len(words) or value < 0:
        found = f'column "{column}" holds class {value}, but its schema names {len(words)} classes'
        raise DataError(found, where=where, field=column)
    return words[value]
