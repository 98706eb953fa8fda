"""The table of a run as CSV or Parquet: numbers stay numbers, and no text is taken for anything but text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from introspect.display import printable
from introspect.errors import ConfigError
from introspect.export.rows import COLUMNS, Row
from introspect.runlog.plain_values import spelled

_FORMULA = tuple("=+-@\t\n＝＋－＠")
"""What a cell begins with that a spreadsheet takes for a formula, or skips to find one; no `\\r` is left."""
_GUARD = "'"


def csv_bytes(rows: Sequence[Row]) -> bytes:
    """The rows as CSV in UTF-8, a header first: text in quotes, numbers and truth without, None empty.

    Text that a spreadsheet would run gets an apostrophe before it, and what acts on a display is an escape,
    so that some text cannot be told from its escape: Parquet and the record have it as it was.
    """
    lines = [",".join(COLUMNS), *(",".join(_cell(row[name]) for name in COLUMNS) for row in rows)]
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def inert(text: str) -> str:
    """Text that neither a spreadsheet nor a display acts on."""
    visible = printable(text)
    return _GUARD + visible if visible.startswith(_FORMULA) else visible


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    """The rows as Parquet: whole numbers of 64 bit, text in UTF-8, half of a surrogate pair as an escape.

    Raises ConfigError where pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "--format parquet needs pyarrow, which is not installed; pip install 'introspect[parquet]'"
        ) from None
    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    columns = [[_encodable(row[name]) for row in rows] for name in COLUMNS]
    arrays = [pyarrow.array(values, schema.field(i).type) for i, values in enumerate(columns)]
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), sink, compression="zstd")
    return sink.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + inert(value).replace('"', '""') + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(spelled(value)) if isinstance(value, float) else str(value)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return None if type(value) is int and not -(2**63) <= value < 2**63 else value
