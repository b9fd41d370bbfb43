"""CSV and Parquet files as a source of NAVs."""

from __future__ import annotations

import codecs
import csv
import re
import struct
from collections.abc import Iterator, Sequence
from datetime import date
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import SourceChanged, UnknownFund, UsageError
from core.sources.base import EventNotice, FundInfo, IndexClose, NavRow
from core.sources.date_range import in_range, selected
from core.sources.event_text import parse_event_text
from core.sources.text_values import MISSING, FieldError, is_fund_code, parse_date, parse_number

# Our field: the headers that mean it, lower case, without blanks, "_" and units in parentheses.
# Not here on purpose: "daily_return_pct", which holds fractions in a widespread recording.
ALIASES: dict[str, tuple[str, ...]] = {
    "fund_code": ("fundcode", "code", "基金代码", "代码"),
    "nav_date": ("navdate", "date", "净值日期", "日期"),
    "unit_nav": ("unitnav", "nav", "单位净值"),
    "accum_nav": ("accumnav", "accnav", "累计净值"),
    "daily_return": ("dailyreturn", "日增长率"),
    "dividend": ("dividend", "每份分红"),
    "split_ratio": ("splitratio", "拆分比例", "折算比例"),
    "income_per_10k": ("incomeper10k", "万份收益", "每万份收益"),
    "yield_7d": ("yield7d", "7日年化", "七日年化", "7日年化收益率", "七日年化收益率"),
    "dividend_text": ("dividendtext", "分红送配"),
    "fund_name": ("fundname", "基金名称", "基金简称"),
    "fund_type": ("fundtype", "基金类型"),
}
_FIELD_OF = {alias: field for field, aliases in ALIASES.items() for alias in aliases}
# In the order of NavRow, from its third field on.
NUMBERS = (
    "unit_nav",
    "accum_nav",
    "daily_return",
    "dividend",
    "split_ratio",
    "income_per_10k",
    "yield_7d",
)
_INCOME = NUMBERS.index("income_per_10k")
_DIVIDEND, _SPLIT = NUMBERS.index("dividend"), NUMBERS.index("split_ratio")
_DESCRIPTION = frozenset({"fund_code", "fund_name", "fund_type"})
_PERCENT = frozenset({"daily_return", "yield_7d"})
_CSV_SUFFIXES = frozenset({".csv", ".tsv"})
_PARQUET_SUFFIX = ".parquet"
_BATCH_ROWS = 50_000

# One row while a whole market is gathered by fund: file, line, date, then NUMBERS (NaN for None).
# A NavRow takes about 400 bytes, this takes 68.
_PACKED = struct.Struct("<iii7d")
_NAN = float("nan")


class FilesSource:
    """A `Source` over one CSV or Parquet file, or a folder of them (recursive, sorted by path).

    Needed columns: fund_code, nav_date and unit_nav or income_per_10k; the headers of `ALIASES` are
    known, other columns are ignored. Percent values may carry a "%". Fund codes that lost leading
    zeros ("1" for "000001") are padded to six digits. CSV: one row per line, comma, tab or semicolon;
    UTF-8 with or without BOM, else GB18030 (which includes GBK).

    Each row's `origin` is "file.csv:LINE" (the row number in Parquet). A row that cannot be read has
    `defect` and `raw`. Raises `UsageError` for a path that cannot be read and `SourceChanged` for a
    file without the needed columns; the files are looked up anew on each call.
    """

    name = "files"

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._files()

    @property
    def provenance(self) -> str:
        """The path as it was given."""
        return f"files {self._path}"

    def fund_list(self) -> list[FundInfo]:
        """Every six-digit code seen, sorted, with the last name and type seen (empty without columns)."""
        names: dict[str, FundInfo] = {}
        for entry in self._entries(None, _DESCRIPTION):
            code = entry.row.fund_code
            if is_fund_code(code):
                known = names.get(code)
                if known is None or entry.fund_name or entry.fund_type:
                    name = entry.fund_name or (known.fund_name if known else "")
                    names[code] = FundInfo(code, name, entry.fund_type or (known.fund_type if known else ""))
        return [names[code] for code in sorted(names)]

    def latest(self) -> list[NavRow]:
        """The newest row of every fund; rows repeated on that date and rows with a defect come too."""
        newest: dict[str, list[NavRow]] = {}
        dates: dict[str, date] = {}
        others: list[NavRow] = []
        for entry in self._entries(None):
            row = entry.row
            if row.nav_date is None or row.defect is not None:
                others.append(row)
            elif row.fund_code not in dates or row.nav_date > dates[row.fund_code]:
                newest[row.fund_code] = [row]
                dates[row.fund_code] = row.nav_date
            elif row.nav_date == dates[row.fund_code]:
                newest[row.fund_code].append(row)
        return [row for rows in newest.values() for row in rows] + others

    def history(self, fund_code: str, start: date | None = None, end: date | None = None) -> list[NavRow]:
        """The rows of one fund from `start` to `end`, oldest first; rows without a readable date first.

        Raises `UnknownFund` when no row has this code.
        """
        entries = self._entries(frozenset((fund_code,)))
        rows = [entry.row for entry in entries if entry.row.fund_code == fund_code]
        if not rows:
            raise UnknownFund(f"{self._path} has no rows of fund {fund_code[:20]!r}; check the code")
        return selected(rows, start, end)

    def histories(
        self, fund_codes: list[str], start: date | None = None, end: date | None = None
    ) -> Iterator[tuple[str, list[NavRow]]]:
        """`history` of many funds in the order given, from one pass over the files.

        A fund without rows gives (code, []). Rows whose code is not six digits belong to no fund; when
        there are any, they come last, as ("", rows), so that no broken row is lost.
        """
        files = [self._shown(file) for file in self._files()]
        number_of = {file: number for number, file in enumerate(files)}
        packed: dict[str, bytearray] = {code: bytearray() for code in fund_codes}
        unpackable: dict[str, list[NavRow]] = {}
        for entry in self._entries(frozenset(fund_codes)):
            row = entry.row
            if not is_fund_code(row.fund_code):
                unpackable.setdefault("", []).append(row)
            elif row.nav_date is None or row.defect is not None:
                unpackable.setdefault(row.fund_code, []).append(row)
            elif in_range(row, start, end):
                packed[row.fund_code] += _pack(number_of[entry.file], entry.line, row.nav_date, row)
        for code in fund_codes:
            rows = [_unpack(code, files, parts) for parts in _PACKED.iter_unpack(packed[code])]
            yield code, selected(unpackable.get(code, []) + rows, start, end)
        if "" in unpackable:
            yield "", unpackable[""]

    def events(self, _since: date, _until: date) -> list[EventNotice] | None:
        """None: in files dividends and splits stand beside the NAVs."""
        return None

    def index_closes(self, _index_code: str, _since: date | None, _until: date) -> list[IndexClose] | None:
        """None: files of index closes are given to the task collect_reference."""
        return None

    def close(self) -> None:
        """Nothing to give back."""

    def _files(self) -> list[Path]:
        try:
            if self._path.is_file():
                return [self._path]
            if not self._path.is_dir():
                raise UsageError(f"there is no file or folder {self._path}; give a CSV or Parquet file")
            files = sorted(
                file
                for file in self._path.rglob("*")
                if file.suffix.lower() in {*_CSV_SUFFIXES, _PARQUET_SUFFIX}
                and not file.name.startswith(".")
                and file.is_file()
            )
        except OSError as exc:
            raise UsageError(f"cannot read {self._path}: {exc.strerror}") from exc
        if not files:
            raise UsageError(f"the folder {self._path} holds no .csv, .tsv or .parquet file")
        return files

    def _shown(self, file: Path) -> str:
        return file.name if file == self._path else file.relative_to(self._path).as_posix()

    def _entries(
        self, only: frozenset[str] | None, fields: frozenset[str] = frozenset(ALIASES)
    ) -> Iterator[_Entry]:
        """All rows of all files with the `fields` wanted; those of other funds than `only` left out."""
        for file in self._files():
            is_parquet = file.suffix.lower() == _PARQUET_SUFFIX
            read = _read_parquet if is_parquet else _read_csv
            try:
                yield from read(file, self._shown(file), only, fields)
            except OSError as exc:
                raise UsageError(f"cannot read {file}: {exc.strerror or exc}") from exc


class _Entry(NamedTuple):
    row: NavRow
    file: str
    line: int
    fund_name: str
    fund_type: str


def _read_csv(
    file: Path, shown: str, only: frozenset[str] | None, fields: frozenset[str]
) -> Iterator[_Entry]:
    with file.open(encoding=_encoding(file, shown)) as lines:
        numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        _, header = next(numbered, (0, ""))
        delimiter = max(",\t;", key=header.count)
        names = _split(header, delimiter) or []
        columns = _columns(names, shown, fields)
        for number, line in numbered:
            raw = line.rstrip("\n")
            cells = _split(raw, delimiter)
            defect = None
            if cells is None:
                cells, defect = raw.split(delimiter), "a quotation mark is not closed"
            while len(cells) > len(names) and not cells[-1].strip():
                cells.pop()
            if defect is None and len(cells) != len(names):
                defect = f"{len(cells)} fields, the header has {len(names)}"
            entry = _entry(cells, columns, (shown, number), only, defect, raw)
            if entry is not None:
                yield entry


def _read_parquet(
    file: Path, shown: str, only: frozenset[str] | None, fields: frozenset[str]
) -> Iterator[_Entry]:
    import pyarrow as pa  # takes a tenth of a second: only where it is needed
    import pyarrow.parquet as pq

    with file.open("rb") as stream:
        try:
            parquet = pq.ParquetFile(stream)
            names = [str(name) for name in parquet.schema_arrow.names]
            columns = _columns(names, shown, fields)
            needed = [names[index] for index in columns.values()]
            columns = {field: index for index, field in enumerate(columns)}
            number = 0
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=needed):
                values = [batch.column(name).to_pylist() for name in needed]
                for cells in zip(*values, strict=True):
                    number += 1
                    entry = _entry(cells, columns, (shown, number), only, None, cells)
                    if entry is not None:
                        yield entry
        except (pa.ArrowException, OSError) as exc:
            raise SourceChanged(f"{shown} is not a readable Parquet file: {exc}") from exc


def _encoding(file: Path, shown: str) -> str:
    """The encoding of a text file, strictly: BOM, else UTF-8, else GB18030, else `SourceChanged`."""
    with file.open("rb") as stream:
        if stream.read(3) == codecs.BOM_UTF8:
            candidates: tuple[str, ...] = ("utf-8-sig",)
        else:
            candidates = ("utf-8", "gb18030")
        for encoding in candidates:
            stream.seek(0)
            decoder = codecs.getincrementaldecoder(encoding)()
            try:
                while chunk := stream.read(1 << 20):
                    decoder.decode(chunk)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                continue
            return encoding
    raise SourceChanged(f"{shown} is not text in {' or '.join(candidates)}; save it as UTF-8")


def _columns(names: Sequence[str], shown: str, fields: frozenset[str]) -> dict[str, int]:
    """Position of each of the `fields` wanted. Raises `SourceChanged` for missing and doubly given ones."""
    columns: dict[str, int] = {}
    for index, name in enumerate(names):
        field = _field(name)
        if field is None:
            continue
        if field in columns:
            raise SourceChanged(
                f"{shown}: columns {names[columns[field]]!r} and {name!r} both mean {_named(field)}"
            )
        columns[field] = index
    missing = [_named(field) for field in ("fund_code", "nav_date") if field not in columns]
    if "unit_nav" not in columns and "income_per_10k" not in columns:
        missing.append(f"{_named('unit_nav')} or {_named('income_per_10k')}")
    if missing:
        found = ", ".join(names)[:200] or "nothing"
        raise SourceChanged(f"{shown}: missing columns {', '.join(missing)}; its header has: {found}")
    return {field: index for field, index in columns.items() if field in fields}


def _named(field: str) -> str:
    """The column as a user may head it: unit_nav (单位净值)."""
    return f"{field} ({next(name for name in ALIASES[field] if not name.isascii())})"


def _field(name: str) -> str | None:
    key = re.split(r"[(（%]", name.strip().lower(), maxsplit=1)[0]
    return _FIELD_OF.get(re.sub(r"[\s_]", "", key))


def _split(line: str, delimiter: str) -> list[str] | None:
    """The cells of one line; None where a quotation mark is not closed."""
    line = line.rstrip("\n")
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error:
        return None


def _entry(
    cells: Sequence[object],
    columns: dict[str, int],
    place: tuple[str, int],
    only: frozenset[str] | None,
    defect: str | None,
    raw: object,
) -> _Entry | None:
    """One row; None when its fund is not asked for. With a defect, as much of it as can be read."""
    known = {field: cells[index] for field, index in columns.items() if index < len(cells)}
    code = _code(known.get("fund_code"))
    if only is not None and code not in only and is_fund_code(code):
        return None
    day = None
    numbers: list[float | None] = [None] * len(NUMBERS)
    try:
        day = _day(known.get("nav_date"))
        if defect is None:  # else cells may have slipped into other columns
            numbers = [_number(field, known.get(field)) for field in NUMBERS]
            nav = known.get("unit_nav")
            if isinstance(nav, str) and nav.strip().lower() == "nan" and numbers[_INCOME] is None:
                raise FieldError("unit_nav", f"{nav.strip()!r} is no number")
            text = _text(known.get("dividend_text"))
            if text:
                dividend, ratio = parse_event_text(text)
                numbers[_DIVIDEND] = dividend if numbers[_DIVIDEND] is None else numbers[_DIVIDEND]
                numbers[_SPLIT] = ratio if numbers[_SPLIT] is None else numbers[_SPLIT]
    except FieldError as exc:
        defect = defect or str(exc)
    kept_raw = str(raw)[:500] if defect else None
    row = NavRow._make((code, day, *numbers, f"{place[0]}:{place[1]}", defect, kept_raw))
    return _Entry(row, *place, _text(known.get("fund_name")), _text(known.get("fund_type")))


def _number(field: str, value: object) -> float | None:
    if value is None:
        return None
    if field in _PERCENT and isinstance(value, str):
        value = value.strip().removesuffix("%")
    return parse_number(field, value)


def _code(value: object) -> str:
    """The fund code as text; one to five digits are padded, anything odd is left for the rules to judge."""
    text = _text(value)
    return text.zfill(6) if text.isascii() and text.isdigit() else text[:16]


def _day(value: object) -> date | None:
    if isinstance(value, date):  # datetime included
        return date(value.year, value.month, value.day)
    return parse_date("nav_date", _text(value))


def _text(value: object) -> str:
    text = "" if value is None else str(value).strip()
    return "" if text in MISSING else text


def _pack(file: int, line: int, day: date, row: NavRow) -> bytes:
    numbers: tuple[float | None, ...] = row[2:9]
    return _PACKED.pack(file, line, day.toordinal(), *[_NAN if n is None else n for n in numbers])


def _unpack(code: str, files: list[str], parts: tuple[Any, ...]) -> NavRow:
    file, line, ordinal, *numbers = parts
    values = [None if isnan(n) else n for n in numbers]
    return NavRow._make((code, date.fromordinal(ordinal), *values, f"{files[file]}:{line}", None, None))
