"""CSV and Parquet files as a source: encodings, headers, broken rows."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import SourceChanged, UnknownFund, UsageError
from core.sources.base import FundInfo, NavRow
from core.sources.files import FilesSource

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
HEADER = "fund_code,nav_date,unit_nav,accum_nav\n"


def csv_file(folder: Path, text: str, name: str = "navs.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def all_rows(path: Path) -> list[NavRow]:
    source = FilesSource(path)
    codes = [fund.fund_code for fund in source.fund_list()]
    return [row for _, rows in source.histories(codes) for row in rows]


CHINESE = (
    "基金代码,基金简称,净值日期,单位净值,累计净值,日增长率,分红送配\n"
    "000001,华夏成长,2025-12-01,1.234,3.567,-0.38%,每份派现金0.0073元\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_chinese_headers_in_every_encoding(tmp_path: Path, encoding: str, newline: str) -> None:
    path = csv_file(tmp_path, CHINESE.replace("\n", newline), encoding=encoding)
    expected = NavRow("000001", date(2025, 12, 1), 1.234, 3.567, -0.38, dividend=0.0073, origin="navs.csv:2")
    source = FilesSource(path)
    assert source.latest() == [expected]
    assert source.history("000001") == [expected]
    assert source.fund_list() == [FundInfo("000001", "华夏成长", "")]
    assert source.provenance == f"files {path}"


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("written", ["2025-12-01", "20251201", "2025/12/1", "2025-12-01 00:00:00"])
def test_delimiters_and_dates(tmp_path: Path, delimiter: str, written: str) -> None:
    text = f"Code,Date,NAV,other\n1,{written},1.5,x\n".replace(",", delimiter)
    assert all_rows(csv_file(tmp_path, text)) == [
        NavRow("000001", date(2025, 12, 1), 1.5, origin="navs.csv:2"),
    ]


def test_every_column_and_missing_values(tmp_path: Path) -> None:
    text = (
        "fund_code,nav_date,unit_nav,accum_nav,daily_return,dividend,split_ratio,income_per_10k,yield_7d\n"
        "000001,2025-12-01,1.5,2.5,0.1,0.02,1.5,,\n"
        "000001,2025-12-02,1.5,--,---,,,,\n"
        '000009,2025-12-01,,,,,,"0.31",1.2%\n'
    )
    assert all_rows(csv_file(tmp_path, text)) == [
        NavRow("000001", date(2025, 12, 1), 1.5, 2.5, 0.1, 0.02, 1.5, origin="navs.csv:2"),
        NavRow("000001", date(2025, 12, 2), 1.5, origin="navs.csv:3"),
        NavRow("000009", date(2025, 12, 1), income_per_10k=0.31, yield_7d=1.2, origin="navs.csv:4"),
    ]


def test_units_in_headers_and_quoted_cells(tmp_path: Path) -> None:
    text = '"基金代码","日期","单位净值(元)","日增长率（%）"\n"000001","2025-12-01","1.5","0.2"\n\n'
    assert all_rows(csv_file(tmp_path, text)) == [
        NavRow("000001", date(2025, 12, 1), 1.5, None, 0.2, origin="navs.csv:2")
    ]


def test_a_fraction_column_is_not_taken_for_percent(tmp_path: Path) -> None:
    text = "fund_code,nav_date,unit_nav,daily_return_pct\n000001,2025-12-01,1.5,0.0038\n"
    assert all_rows(csv_file(tmp_path, text))[0].daily_return is None


@pytest.mark.parametrize(
    ("line", "defect"),
    [
        ("000001,2025-12-02,abc,1", "unit_nav 'abc' is no number"),
        ("000001,2025-12-02,nan,", "unit_nav 'nan' is no number"),
        ("000001,2025-12-02, NaN ,1", "unit_nav 'NaN' is no number"),
        ("000001,2025-12-02,inf,1", "unit_nav 'inf' is no number"),
        ("000001,2025-02-30,1.5,1", "nav_date '2025-02-30' is no date"),
        ("000001,2025-12-02,1.5", "3 fields, the header has 4"),
        ("000001,2025-12-02,1,234.5,1", "5 fields, the header has 4"),
        ('000001,2025-12-02,"1.5,1', "a quotation mark is not closed"),
    ],
)
def test_broken_row_is_kept_with_file_line_and_text(tmp_path: Path, line: str, defect: str) -> None:
    text = f"{HEADER}000001,2025-12-01,1.4,1\n{line}\n000001,2025-12-03,1.6,1\n"
    source = FilesSource(csv_file(tmp_path, text))
    [broken] = [row for row in source.history("000001") if row.defect]
    assert (broken.fund_code, broken.origin, broken.defect, broken.raw) == (
        "000001",
        "navs.csv:3",
        defect,
        line,
    )
    [(_, rows)] = source.histories(["000001"])
    assert rows == source.history("000001")
    assert [row.nav_date for row in rows if not row.defect] == [date(2025, 12, 1), date(2025, 12, 3)]
    assert [row.origin for row in source.latest()] == ["navs.csv:4", "navs.csv:3"]


def test_rows_of_no_fund_are_not_lost(tmp_path: Path) -> None:
    text = f"{HEADER}ABC,2025-12-01,1.4,1\n,2025-12-01,1.4,1\n000001,2025-12-01,1.4,1\n"
    source = FilesSource(csv_file(tmp_path, text))
    found = list(source.histories(["000001"]))
    assert [code for code, _ in found] == ["000001", ""]
    assert [(row.fund_code, row.origin) for row in found[1][1]] == [("ABC", "navs.csv:2"), ("", "navs.csv:3")]
    assert [fund.fund_code for fund in source.fund_list()] == ["000001"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("fund_code,nav_date,price", r"navs.csv: missing columns unit_nav.*fund_code, nav_date, price"),
        ("a,b,unit_nav", r"missing columns fund_code \(基金代码\), nav_date \(净值日期\);"),
        ("fund_code,date,净值日期,nav", "'date' and '净值日期' both mean nav_date"),
        ("", r"missing columns .*, unit_nav \(单位净值\) or income_per_10k \(万份收益\)"),
    ],
)
def test_wrong_header_is_a_changed_format(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(SourceChanged, match=message):
        FilesSource(csv_file(tmp_path, header + "\n")).latest()


def test_neither_utf8_nor_gb18030_is_a_changed_format(tmp_path: Path) -> None:
    path = tmp_path / "navs.csv"
    path.write_bytes(HEADER.encode() + b"000001,2025-12-01,1.4,\xff\xff\n")
    with pytest.raises(SourceChanged, match=r"navs\.csv is not text in utf-8 or gb18030"):
        FilesSource(path).latest()


def test_wrong_paths_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file or folder"):
        FilesSource(tmp_path / "missing.csv")
    with pytest.raises(UsageError, match=r"holds no \.csv"):
        FilesSource(tmp_path)
    source = FilesSource(csv_file(tmp_path, HEADER))
    (tmp_path / "navs.csv").unlink()
    with pytest.raises(UsageError, match="no file or folder"):
        source.latest()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file_is_a_usage_error(tmp_path: Path) -> None:
    path = csv_file(tmp_path, HEADER)
    path.chmod(0)
    with pytest.raises(UsageError, match=r"cannot read .*navs\.csv"):
        FilesSource(path).latest()


def test_folder_is_read_recursively_in_order(tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER + "000001,2025-12-02,1.2,1\n000002,2025-12-01,2.1,1\n", "b.csv")
    csv_file(tmp_path, HEADER + "000001,2025-12-01,1.1,1\n", "a/day.CSV")
    csv_file(tmp_path, "not a table", ".hidden.csv")
    csv_file(tmp_path, "not a table", "README.txt")
    pq.write_table(pa.table({"code": [1], "date": [date(2025, 12, 3)], "nav": [1.3]}), tmp_path / "c.parquet")
    source = FilesSource(tmp_path)
    assert dict(source.histories(["000002", "000001", "000404"])) == {
        "000002": [NavRow("000002", date(2025, 12, 1), 2.1, 1.0, origin="b.csv:3")],
        "000001": [
            NavRow("000001", date(2025, 12, 1), 1.1, 1.0, origin="a/day.CSV:2"),
            NavRow("000001", date(2025, 12, 2), 1.2, 1.0, origin="b.csv:2"),
            NavRow("000001", date(2025, 12, 3), 1.3, origin="c.parquet:1"),
        ],
        "000404": [],
    }
    assert {row.fund_code: row.origin for row in source.latest()} == {
        "000001": "c.parquet:1",
        "000002": "b.csv:3",
    }
    second = date(2025, 12, 2)
    assert [r.origin for r in source.history("000001", second, second)] == ["b.csv:2"]
    assert dict(source.histories(["000001"], second, second))["000001"] == source.history(
        "000001", second, second
    )
    with pytest.raises(UnknownFund, match="000404"):
        source.history("000404")


def test_repeated_newest_rows_stay_for_the_rules(tmp_path: Path) -> None:
    text = HEADER + "000001,2025-12-02,1.2,1\n000001,2025-12-02,1.3,1\n000001,2025-12-01,1.1,1\n"
    assert [row.unit_nav for row in FilesSource(csv_file(tmp_path, text)).latest()] == [1.2, 1.3]


def test_parquet_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "fund_code": pa.array(["000001", "000002", "000003"]).dictionary_encode(),
            "nav_date": pa.array([date(2025, 12, 1)] * 3, pa.date32()).cast(pa.timestamp("us")),
            "unit_nav": pa.array([1.5, float("nan"), None], pa.float64()),
            "accum_nav": pa.array(["2.5", "", "x"]),
        }
    )
    pq.write_table(table, tmp_path / "navs.parquet")
    rows = all_rows(tmp_path / "navs.parquet")
    assert rows[:2] == [
        NavRow("000001", date(2025, 12, 1), 1.5, 2.5, origin="navs.parquet:1"),
        NavRow("000002", date(2025, 12, 1), origin="navs.parquet:2"),
    ]
    assert (rows[2].origin, rows[2].defect) == ("navs.parquet:3", "accum_nav 'x' is no number")
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "navs.parquet").read_bytes()[:-20])
    with pytest.raises(SourceChanged, match=r"broken\.parquet is not a readable Parquet file"):
        FilesSource(tmp_path / "broken.parquet").latest()


@pytest.mark.skipif(not DATA.is_dir(), reason="no recorded fund data beside the checkout")
def test_recorded_parquet_rows(tmp_path: Path) -> None:
    codes = ["159970", "508001", "009052"]
    table = pq.read_table(DATA / "nav_history.parquet", filters=[("fund_code", "in", codes)])
    pq.write_table(table, tmp_path / "part.parquet")
    found = dict(FilesSource(tmp_path / "part.parquet").histories(codes))
    for code in codes:
        theirs = [r for r in table.to_pylist() if r["fund_code"] == code]
        expected = [
            (r["nav_date"], *(None if r[c] is None else float(r[c]) for c in ("unit_nav", "accum_nav")))
            for r in theirs
        ]
        assert [(str(r.nav_date), r.unit_nav, r.accum_nav) for r in found[code]] == expected
    assert [(str(r.nav_date), r.split_ratio) for r in found["159970"] if r.split_ratio][-1] == (
        "2025-12-19",
        6.0,
    )
