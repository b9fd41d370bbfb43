"""`main.py metrics show` and `main.py rank`: metrics, ranks and scores as records and in words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, func, select

from config.translation import N_, translator
from core import db
from core.errors import NotReady, UsageError
from core.metric_columns import COLUMNS, DATE_METRICS, DAY_METRICS, PERCENT_METRICS, PERIODS, WINDOWS
from core.metrics_store import calc_dates
from core.rank_columns import COMPONENTS, PARTS, RANKED, lower_is_better
from core.schema import fund_info, fund_metrics, fund_rank, fund_score
from core.trading_calendar import SHANGHAI
from scheduler.firing import require_calendar
from scheduler.nav_listing import TIME, fund_named
from scheduler.sections import Section
from scheduler.wording import CATEGORIES, Translate, clock_time, day, number, one_line

if TYPE_CHECKING:
    from config.settings import Settings
    from scheduler.quality import Record

SUGGESTED = 5
SCORE = "score"  # ranked by, beside the metrics
LANGUAGES = ("zh", "en")
PERIOD_NAMES = {
    "1w": N_("1 week"),
    "1m": N_("1 month"),
    "3m": N_("3 months"),
    "6m": N_("6 months"),
    "1y": N_("1 year"),
    "2y": N_("2 years"),
    "3y": N_("3 years"),
    "5y": N_("5 years"),
    "ytd": N_("this year"),
    "inception": N_("since inception"),
}
# Of core.metric_columns, without period and window.
METRIC_NAMES = {
    "return": N_("return"),
    "cagr": N_("return a year"),
    "volatility": N_("volatility"),
    "downside_deviation": N_("downside deviation"),
    "sharpe": N_("Sharpe ratio"),
    "sortino": N_("Sortino ratio"),
    "max_drawdown": N_("maximum drawdown"),
    "max_drawdown_peak": N_("drawdown: peak"),
    "max_drawdown_trough": N_("drawdown: trough"),
    "max_drawdown_recovery": N_("drawdown: recovery"),
    "days_under_water": N_("days under water"),
    "calmar": N_("Calmar ratio"),
    "var_95": N_("value at risk 95"),
    "cvar_95": N_("expected shortfall 95"),
    "skewness": N_("skewness"),
    "kurtosis": N_("excess kurtosis"),
    "best_day": N_("best day"),
    "worst_day": N_("worst day"),
    "win_rate": N_("days with a gain"),
    "beta": N_("beta"),
    "alpha": N_("alpha"),
    "r_squared": N_("R squared"),
    "tracking_error": N_("tracking error"),
    "information_ratio": N_("information ratio"),
    "up_capture": N_("up capture"),
    "down_capture": N_("down capture"),
    SCORE: N_("score"),
}
FOR_ORDER = ("fund_code", "fund_name", "category", "nav_count", "value")
UNITS = {"percent": "%", "days": N_("days")}


def stem(metric: str) -> str:
    """A column of core.metric_columns without its period or window."""
    return metric if metric == SCORE else metric.rpartition("_")[0]


def unit(metric: str) -> str:
    """percent, ratio, days, date or, of the score, points."""
    of = stem(metric)
    if of == SCORE:
        return "points"
    if of in DATE_METRICS:
        return "date"
    if of in DAY_METRICS:
        return "days"
    return "percent" if of == "return" or of in PERCENT_METRICS else "ratio"


def fund_metrics_of(engine: Engine, code: str, calc_date: date | None) -> Record:
    """Everything calculated of a fund for a date, the newest without one: each metric with unit and rank.

    Raises UsageError for a code that is not known and for a date without metrics of it, NotReady where it has none.
    """
    with db.read(engine) as connection:
        fund = fund_named(connection, code)
        row = _newest(connection, code, calc_date)
        if row is None and calc_date is not None:
            raise UsageError(f"there are no metrics of {code} for {calc_date}")
        if row is None:
            raise NotReady(f"there are no metrics of {code} yet; calculate them: python main.py metrics")
        same = {"code": code, "calc_date": row["calc_date"], "version": row["definition_version"]}
        ranks, score = (
            _only(connection, select(table).where(_mine(table.c, **same)))
            for table in (fund_rank, fund_score)
        )
    heads = ("calc_date", "definition_version", "nav_date", "nav_count")
    return {
        **{name: fund[name] for name in ("fund_code", "fund_name", "fund_type")},
        **{name: row[name] for name in heads},
        "score": score.get("score"),
        "level": score.get("level"),
        "points": {name: score.get(f"points_{name}") for name in COMPONENTS},
        "metrics": {
            name: {"value": row[name], "unit": unit(name)}
            | ({part: ranks.get(f"{part}_{name}") for part in PARTS} if name in RANKED else {})
            for name in COLUMNS
        },
    }


def fund_metrics_as_of(
    engine: Engine, settings: Settings, code: str, calc_date: date | None, instant: datetime
) -> Record:
    """As `fund_metrics_of`, calculated now from what was known at `instant`; nothing is stored.

    Without a date for the newest trading day of then. No rank and no score: they are of the whole market. Raises
    UsageError for a code that is not known, NotReady where no NAV of it was known then.
    """
    from core.metrics_calculator import ROW_COLUMNS
    from scheduler.tasks import calculator_for

    with db.read(engine) as connection:
        fund, calendar = fund_named(connection, code), require_calendar(connection)
    day = calc_date or calendar.newest_business_date(instant)
    rows = list(
        calculator_for(engine, settings, calendar).calculate_market(day, [code], as_of=instant).rows()
    )
    if not rows:
        raise NotReady(
            f"no NAV of {code} up to {day} was known at {instant.astimezone(SHANGHAI).isoformat()}"
        )
    row = dict(zip(ROW_COLUMNS, rows[0], strict=True))
    return {
        **{name: fund[name] for name in ("fund_code", "fund_name", "fund_type")},
        "calc_date": day,
        "definition_version": row["definition_version"],
        "nav_date": date.fromisoformat(row["nav_date"]),
        "nav_count": row["nav_count"],
        "as_of": instant,
        "score": None,
        "level": None,
        "points": dict.fromkeys(COMPONENTS),
        "metrics": {
            name: {"value": _as_stored(row[name], unit(name)), "unit": unit(name)}
            | (dict.fromkeys(PARTS) if name in RANKED else {})
            for name in COLUMNS
        },
    }


def _as_stored(value: Any, unit: str) -> Any:
    return date.fromisoformat(value) if unit == "date" and value is not None else value


def _mine(columns: Any, code: str, calc_date: date | None, version: str | None = None) -> ColumnElement[bool]:
    found: ColumnElement[bool] = columns.fund_code == code
    if calc_date is not None:
        found = and_(found, columns.calc_date == calc_date)
    return found if version is None else and_(found, columns.definition_version == version)


def _only(connection: Connection, query: Select[Any]) -> Record:
    row = connection.execute(query).one_or_none()
    return {} if row is None else row._asdict()


def _newest(connection: Connection, code: str, calc_date: date | None) -> Record | None:
    """Of the date, or of the newest one with any, the row of the newest definition."""
    for one in calc_dates(connection, fund_metrics) if calc_date is None else (calc_date,):
        query = select(fund_metrics).where(_mine(fund_metrics.c, code, one))
        if rows := [row._asdict() for row in connection.execute(query)]:
            return max(rows, key=lambda row: _version(row["definition_version"]))
    return None


def _version(text: str) -> tuple[int, str]:
    return len(text), text  # "10" is newer than "9"


def metric_sections(record: Record, _: Translate) -> list[Section]:
    """Score, returns by period, and the other metrics with a column for each window."""
    title = one_line(
        " ".join(filter(None, (record[name] for name in ("fund_code", "fund_name", "fund_type"))))
    )
    said = _("metrics of {date}, definition {version}; {count} NAVs, the newest of {nav_date}").format(
        date=day(record["calc_date"]),
        version=record["definition_version"],
        count=number(record["nav_count"]),
        nav_date=day(record["nav_date"]),
    )
    if record.get("as_of"):
        said = f"{said}; {_('as known at {time} in Shanghai').format(time=clock_time(record['as_of'], TIME))}"
    metrics = record["metrics"]
    returns = [
        [
            _(PERIOD_NAMES[period]),
            *_cells(metrics[f"return_{period}"]),
            _percentile(metrics[f"return_{period}"]),
        ]
        for period in PERIODS
    ]
    risks = [
        [
            f"{metric_name(name, _)} {_unit_text(unit(name), _)}".strip(),
            *_cells(metrics[name]),
            _percentile(metrics[name]),
        ]
        for name in RANKED
        if stem(name) != "return"
    ]
    headers = [_("rank"), _("quartile"), _("percentile")]
    note = _("rank and quartile: within the fund's type, one share class of each fund counted; 1 is the best")
    return [
        Section(title, note=said),
        score_section(record, _),
        Section(_("Returns"), [_("period"), _("return %"), *headers], returns, right=(1, 2, 3, 4)),
        Section(_("Risk"), [_("metric"), _("value"), *headers], risks, right=(1, 2, 3, 4), note=note),
        window_section(metrics, _),
    ]


def score_section(record: Record, _: Translate) -> Section:
    """The score and the points that it is made of."""
    if record.get("as_of"):
        return Section(
            "", note=_("no ranks and no score: they are of the whole market (main.py metrics --as-of)")
        )
    if record["score"] is None:
        return Section("", note=_("no score: too few metrics are known, or its type has none"))
    title = _("Score {score}, level {level}").format(score=f"{record['score']:.2f}", level=record["level"])
    rows = [
        [metric_name(name, _), "-" if points is None else f"{points:.1f}"]
        for name, points in record["points"].items()
    ]
    note = _("points: the share of the other funds of its type that are not better, percent")
    return Section(title, [_("component"), _("points")], rows, right=(1,), note=note)


def window_section(metrics: Mapping[str, Record], _: Translate) -> Section:
    stems = list(dict.fromkeys(stem(name) for name in metrics if stem(name) != "return"))
    headers = [_("metric"), _("unit"), *(_(PERIOD_NAMES[window]) for window in WINDOWS)]
    rows = []
    for of in stems:
        values = [metrics[f"{of}_{window}"] for window in WINDOWS]
        shown = [value_text(metric["value"], metric["unit"]) for metric in values]
        rows.append([_(METRIC_NAMES[of]), _unit_text(values[0]["unit"], _), *shown])
    return Section(_("Windows"), headers, rows, right=(2, 3, 4))


def _cells(metric: Record) -> list[str]:
    """Value, rank of peers, quartile."""
    rank = metric.get("rank")
    placed = ["", ""] if rank is None else [_rank_text(metric), str(metric["quartile"])]
    return [value_text(metric["value"], metric["unit"]), *placed]


def _rank_text(record: Record) -> str:
    return f"{number(record['rank'])}/{number(record['peers'])}"


def _percentile(record: Record) -> str:
    found = record.get("percentile")
    return "" if found is None else f"{found:.1f}"


def value_text(value: Any, unit: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, date):
        return day(value)
    return {"days": "{:.0f}", "ratio": "{:.3f}"}.get(unit, "{:.2f}").format(value)


def _unit_text(unit: str, _: Translate) -> str:
    return _(UNITS[unit]) if unit in UNITS else ""


def metric_name(metric: str, _: Translate) -> str:
    """A metric in words, with its period or window."""
    if metric == SCORE:
        return _(METRIC_NAMES[SCORE])
    return f"{_(METRIC_NAMES[stem(metric)])} {_(PERIOD_NAMES[metric.rpartition('_')[2]])}"


def ranked_funds(
    engine: Engine, by: str, wanted: str | None, calc_date: date | None, *, bottom: bool, every_class: bool
) -> list[Record]:
    """Funds with a value of `by`, the best first, or the worst if `bottom`; equal ones by code.

    `by`: a metric or "score". `wanted`: a category, in any language of ours, or what the publisher's type
    begins with. Of each fund the share class that is counted in its rank, unless `every_class`. Raises
    UsageError for a metric, type or date that is not known, NotReady before the first metrics.
    """
    _require_metric(by)
    with db.read(engine) as connection:
        of_type = type_filter(connection, wanted)
        found, version = measured_date(connection, calc_date)
        rows = connection.execute(_market(by, found, version, of_type)).all()
    ordered = _ordered(rows, by, bottom=bottom, every_class=every_class)
    return [row._asdict() | {"metric": by} for row in ordered]


def ranked_page(
    engine: Engine, by: str, wanted: str | None, *, bottom: bool, offset: int, limit: int
) -> tuple[list[Record], int]:
    """Some of what `ranked_funds` gives for the newest date, and how many there are; only these are read whole."""
    _require_metric(by)
    with db.read(engine) as connection:
        of_type = type_filter(connection, wanted)
        found, version = measured_date(connection, None)
        rows = connection.execute(_market(by, found, version, of_type, whole=False)).all()
        ordered = _ordered(rows, by, bottom=bottom, every_class=False)
        codes = [row.fund_code for row in ordered[offset : offset + limit]]
        mine = fund_metrics.c.fund_code.in_(codes)
        whole = {row.fund_code: row for row in connection.execute(_market(by, found, version, mine))}
    return [whole[code]._asdict() | {"metric": by} for code in codes], len(ordered)


def _require_metric(by: str) -> None:
    if by != SCORE and by not in COLUMNS:
        near = difflib.get_close_matches(by, (SCORE, *COLUMNS), n=SUGGESTED)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join((SCORE, *COLUMNS))}"
        raise UsageError(f"there is no metric {by!r}; {hint}")


def _ordered(rows: Sequence[Row[Any]], by: str, *, bottom: bool, every_class: bool) -> list[Row[Any]]:
    chosen = list(rows) if every_class else _one_class_each(rows)
    worst_first = lower_is_better(by) == bottom
    chosen.sort(key=lambda row: row.value, reverse=worst_first)  # stable: they came by code
    return chosen


def type_filter(connection: Connection, wanted: str | None) -> ColumnElement[bool] | None:
    """Raises UsageError naming the types there are."""
    if wanted is None:
        return None
    words = {
        key: {key, *(translator(name)(text).casefold() for name in LANGUAGES)}
        for key, text in CATEGORIES.items()
    }
    category = next((key for key, known in words.items() if wanted.casefold() in known), None)
    if category is not None:
        return fund_info.c.category == category
    types = connection.execute(select(fund_info.c.fund_type).distinct()).scalars().all()
    if not any(kind.startswith(wanted) for kind in types):
        known = ", ".join(sorted(filter(None, types)))
        raise UsageError(f"there is no fund type {wanted!r}; there are {known}; and {', '.join(CATEGORIES)}")
    return fund_info.c.fund_type.startswith(wanted, autoescape=True)


def measured_date(connection: Connection, calc_date: date | None) -> tuple[date, str]:
    """The date asked for, or the newest with metrics, and its newest definition."""
    column = fund_metrics.c.calc_date
    newest: date | None = connection.scalar(select(func.max(column)))
    if newest is None:
        raise NotReady("there are no metrics yet; calculate them: python main.py metrics")
    versions = select(fund_metrics.c.definition_version).where(column == (calc_date or newest)).distinct()
    found = connection.execute(versions).scalars().all()
    if not found:
        raise UsageError(f"there are no metrics for {calc_date}; the newest are of {newest}")
    return calc_date or newest, max(found, key=_version)


def _market(
    by: str, calc_date: date, version: str, which: ColumnElement[bool] | None, *, whole: bool = True
) -> Select[Any]:
    """The funds with a value of `by`, by code; `whole`: with rank and score."""
    metric, info = fund_metrics.c, fund_info.c
    joined = fund_metrics.outerjoin(fund_info, info.fund_code == metric.fund_code)
    value = fund_score.c.score if by == SCORE else metric[by]
    columns = [
        metric.fund_code,
        *(func.coalesce(info[name], "").label(name) for name in ("fund_name", "fund_type", "category")),
        *(metric.calc_date, metric.definition_version, metric.nav_date, metric.nav_count),
        value.label("value"),
    ]
    if whole:
        columns += [fund_rank.c[f"{part}_{by}"].label(part) for part in PARTS if by in RANKED]
        columns += [fund_score.c.score, fund_score.c.level]
    for table in (fund_rank, fund_score) if whole else (fund_score,) if by == SCORE else ():
        same = (table.c[name] == metric[name] for name in ("fund_code", "calc_date", "definition_version"))
        joined = joined.outerjoin(table, and_(*same))
    mine = [metric.calc_date == calc_date, metric.definition_version == version, value.is_not(None)]
    if which is not None:
        mine.append(which)
    if not whole:
        columns = [column for column in columns if column.name in FOR_ORDER]
    return select(*columns).select_from(joined).where(*mine).order_by(metric.fund_code)


def _one_class_each(rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    from core.ranking import peers_of, representatives

    codes, names, categories = (
        [getattr(row, name) for row in rows] for name in ("fund_code", "fund_name", "category")
    )
    counts = np.array([row.nav_count for row in rows], dtype=np.int64)
    chosen = representatives(np.zeros(len(rows)), peers_of(codes, names, categories, counts))
    return [row for row, stands in zip(rows, chosen.tolist(), strict=True) if stands]


def rank_sections(
    records: Sequence[Record], total: int, by: str, _: Translate, *, bottom: bool
) -> list[Section]:
    """The funds listed, of `total` that there are."""
    if not records:
        return [Section("", note=_("no fund of this type has a value of it"))]
    first = records[0]
    title = _("{metric} of {date}").format(metric=metric_name(by, _), date=day(first["calc_date"]))
    headers = [_("fund"), _("type"), f"{_(METRIC_NAMES[stem(by)])} {_unit_text(unit(by), _)}".strip()]
    headers += [_("rank"), _("quartile")] if by in RANKED else []
    headers += [_("score")] if by != SCORE else []
    headers += [_("level"), _("name")]
    rows = [_rank_row(record, by) for record in records]
    chosen = _("the worst {n} of {total}") if bottom else _("the best {n} of {total}")
    note = chosen.format(n=number(len(records)), total=number(total))
    return [Section(title, headers, rows, right=tuple(range(2, len(headers) - 2)), note=note)]


def _rank_row(record: Record, by: str) -> list[str]:
    row = [record["fund_code"], one_line(record["fund_type"]), value_text(record["value"], unit(by))]
    if by in RANKED:
        row += ["-", "-"] if record["rank"] is None else [_rank_text(record), str(record["quartile"])]
    row += [value_text(record["score"], "points")] if by != SCORE else []
    return [*row, record["level"] or "-", one_line(record["fund_name"])]
