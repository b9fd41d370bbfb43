"""Records as CSV or Parquet, their columns as a model has them: the same types on every page, whatever is blank."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from scheduler.quality import Record

MEDIA_TYPES = {"json": "application/json", "csv": "text/csv", "parquet": "application/vnd.apache.parquet"}


def encoded(records: Sequence[Record], model: type[BaseModel], form: str) -> bytes:
    """`form`: csv or parquet. Instants are UTC."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    kinds: dict[Any, Any] = {
        int: pa.int64(),
        float: pa.float64(),
        date: pa.date32(),
        datetime: pa.timestamp("us", tz="UTC"),
        str: pa.string(),
    }
    fields = [
        (name, kinds[(get_args(info.annotation) or (info.annotation,))[0]])
        for name, info in model.model_fields.items()
    ]
    table = pa.Table.from_pylist(list(records), schema=pa.schema(fields))
    file = io.BytesIO()
    (parquet.write_table if form == "parquet" else csv.write_csv)(table, file)
    return file.getvalue()
