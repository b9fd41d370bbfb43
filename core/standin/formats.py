"""The upstream's formats: pure functions from a view to the text of rows, and from rows to replies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np

from core.standin.market import Event, Fund, Rows, View, beijing_midnights, iso_dates
from core.standin.periods import COLUMNS, period_returns

KINDS = {
    "gp": ("股票型",),
    "hh": ("混合型",),
    "zq": ("债券型",),
    "zs": ("指数型",),
    "qdii": ("QDII",),
    "fof": ("FOF",),
}
FUND_TYPE_CODES = (  # prefix of the type name -> FundType of lsjz
    ("货币型", "005"),
    ("QDII", "007"),
    ("债券型", "003"),
    ("指数型", "000"),
    ("混合型", "002"),
    ("FOF", "002"),
)
UNLIMITED = "100000000000"
SWITCHES = "1.50%,0.15%,1,0.15%,1,"  # fees and buttons at the end of a ranking row


def nav_text(value: float) -> str:
    """A NAV with four decimals, or more where it was published with more; NaN gives ''."""
    if math.isnan(value):
        return ""
    text = f"{value:.4f}"
    return text if float(text) == value else repr(value)


def percent_text(value: float) -> str:
    """A percentage with two decimals; NaN gives ''."""
    return "" if math.isnan(value) else f"{value:.2f}"


def compact(value: object) -> str:
    """JSON without spaces, Chinese as is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def fund_list_rows(view: View) -> list[str]:
    """fundcode_search.js: code, pinyin initials, name, type, full pinyin."""
    funds = view.market.funds
    return [
        compact([f.code, f.pinyin, f.name, f.fund_type, f.pinyin_full])
        for f in (funds[i] for i in _listed(view))
    ]


def _listed(view: View) -> list[int]:
    gone = view.altered.delisted
    funds = view.market.funds
    return [i for i in view.market.by_code if view.latest[i] >= 0 and funds[i].code not in gone]


def rank_rows(view: View, exchange: bool, money: bool = False) -> list[str]:
    """rankhandler rows as JSON strings: 25 fields for open-end funds (dt=kf), 23 for traded ones (dt=fb).

    The rows of traded funds have no daily return and end with the fund type, so their columns are
    not the open-end ones (AKShare's fund_exchange_rank_em reads them so). `money` adds money funds,
    where they do not belong.
    """
    market = view.market
    kind = [i for i in _listed(view) if market.funds[i].exchange is exchange]
    funds = [i for i in kind if money or not market.funds[i].money]
    last = view.latest[np.array(funds, dtype=np.int64)]
    firsts = market.offsets[np.array(funds, dtype=np.int64)]
    table = zip(
        funds,
        iso_dates(market.dates[last]),
        view.values("unit_nav", last),
        view.values("accum_nav", last),
        view.values("daily_return", last),
        period_returns(view, funds).tolist() if funds else [],
        iso_dates(market.dates[firsts]),
        strict=True,
    )
    rows = []
    for i, day, unit, accum, change, periods, born in table:
        fund = market.funds[i]
        returns = [percent_text(p) for p in periods]
        head = f'"{fund.code},{fund.name},{fund.pinyin},{day},{nav_text(unit)},{nav_text(accum)}'
        if exchange:
            rows.append(f'{head},{",".join(returns)},{born},,,,,,{fund.fund_type},"')
        else:
            custom = returns[COLUMNS.index("1y")]
            rows.append(f'{head},{percent_text(change)},{",".join(returns)},{born},1,{custom},{SWITCHES}"')
    return rows


def rank_page(rows: list[str], total: int, page: int, size: int, counts: Mapping[str, int]) -> str:
    """`var rankData = {datas:[…],allRecords:…};`: unquoted keys, strings of comma-separated fields."""
    pages = math.ceil(total / size)
    tail = ",".join(f"{name}Num:{count}" for name, count in counts.items())
    return (
        f"var rankData = {{datas:[{','.join(rows)}],allRecords:{total},pageIndex:{page},"
        f"pageNum:{size},allPages:{pages},{tail}}};"
    )


def status_rows(view: View) -> list[str]:
    """JJJZ t=8 rows: 13 strings; money funds carry income per 10,000 shares; the date is MM-DD."""
    market = view.market
    funds = _listed(view)
    last = view.latest[np.array(funds, dtype=np.int64)]
    table = zip(funds, iso_dates(market.dates[last]), view.values("unit_nav", last), strict=True)
    rows = []
    for i, day, value in table:
        fund = market.funds[i]
        states = _states(view, i, int(view.latest[i]))
        start = [fund.code, fund.name, fund.fund_type, nav_text(value), day[5:], *states]
        rows.append(compact([*start, "", "10.0", UNLIMITED, "1.0", "1", "0.15%"]))
    return rows


def _states(view: View, fund: int, row: int) -> tuple[str, str]:
    """Purchase and redemption of a fund on the day of its newest row."""
    about = view.market.funds[fund]
    if about.code in view.altered.statuses:
        return view.altered.statuses[about.code]
    if view.market.dates[row] < view.market.opens.get(fund, 0):
        return "封闭期", "封闭期"
    return ("场内交易", "场内交易") if about.exchange else ("开放申购", "开放赎回")


def kline(view: View, code: str, first: str, last: str) -> list[str] | None:
    """Rows `"2015-01-05,3641.54"` of an index from `first` to `last` (YYYYMMDD); None for an unknown one."""
    found = view.index_closes(code)
    if found is None:
        return None
    days = iso_dates(found[0])
    return [
        f'"{day},{close:.2f}"'
        for day, close in zip(days, found[1].tolist(), strict=True)
        if first <= day.replace("-", "") <= last
    ]


def kline_page(view: View, code: str, market: str, rows: list[str]) -> str:
    """The JSON around K-line rows."""
    name = compact(view.market.indices[code].name)
    return (
        '{"rc":0,"rt":17,"svr":181669437,"lt":1,"full":0,"dlmkts":"",'
        f'"data":{{"code":"{code}","market":{market},"name":{name},"decimal":2,'
        f'"dktotal":{len(rows)},"klines":[{",".join(rows)}]}}}}'
    )


NO_KLINE = '{"rc":100,"rt":17,"svr":181669437,"lt":1,"full":0,"dlmkts":"","data":null}'


def status_page(view: View, rows: list[str], total: int, page: int, size: int, variable: str) -> str:
    """`var reData={datas:[[…],…],record:"…",pages:"…",curpage:"…",showday:[…]}`."""
    last = view.latest[view.latest >= 0]
    days = iso_dates(np.unique(view.market.dates[last])[-2:][::-1])
    return (
        f'var {variable}={{datas:[{",".join(rows)}],record:"{total}",pages:"{math.ceil(total / size)}",'
        f'curpage:"{page}",showday:{compact(days)}}}'
    )


def money_rank_rows(view: View) -> list[str]:
    """GetHbRankList rows: DWJZ is income per 10,000 shares, LJJZ the 7-day yield in percent."""
    market = view.market
    funds = [i for i in _listed(view) if market.funds[i].money]
    last = view.latest[np.array(funds, dtype=np.int64)]
    table = zip(
        funds,
        iso_dates(market.dates[last]),
        view.values("unit_nav", last),
        view.values("accum_nav", last),
        strict=True,
    )
    rows = []
    for i, day, income, yield_7d in table:
        fund = market.funds[i]
        row: dict[str, object] = dict.fromkeys(("SYL_1N", "SYL_2N", "SYL_3N", "SYL_5N"), "")
        row |= {"BFUNDTYPE": "005", "FEATURE": "", "FCODE": fund.code, "SHORTNAME": fund.name, "FSRQ": day}
        row |= {"DWJZ": nav_text(income), "LJJZ": nav_text(yield_7d)}
        row |= dict.fromkeys(("TFYI", "FTYI", "TEYI", "SYL_Y", "SYL_3Y", "SYL_6Y", "SYL_JN", "SYL_LN"), "")
        row |= {"SOURCERATE": "0.00%", "RATE": "0.00%", "ISBUY": "1", "ISSALES": "1", "MINSG": "10"}
        row |= {"MAXSG": UNLIMITED, "CYCLE": "", "LISTTEXCH": ""}
        rows.append(compact(row))
    return rows


def money_rank_page(rows: list[str], total: int, page: int, size: int) -> str:
    """The JSON around GetHbRankList rows."""
    return (
        f'{{"Data":[{",".join(rows)}],"ErrCode":0,"ErrMsg":null,"TotalCount":{total},'
        f'"Expansion":null,"PageSize":{size},"PageIndex":{page}}}'
    )


def lsjz_rows(view: View, fund: int, rows: Rows) -> list[str]:
    """lsjz rows of one fund, in the order of `rows`: the 14 fields of the reply."""
    market = view.market
    money, exchange = market.funds[fund].money, market.funds[fund].exchange
    states = ("场内买入", "场内卖出") if exchange else ("开放申购", "开放赎回")
    table = zip(
        rows.tolist(),
        iso_dates(market.dates[rows]),
        view.values("unit_nav", rows),
        view.values("accum_nav", rows),
        view.values("daily_return", rows),
        strict=True,
    )
    texts = []
    for row, day, unit, accum, change in table:
        span = market.span_starts.get(row)
        event = market.events.get(row)
        cash = "" if event is None or event.dividend is None else repr(event.dividend)
        fields: dict[str, object] = {"FSRQ": day, "DWJZ": nav_text(unit), "LJJZ": nav_text(accum)}
        fields["SDATE"] = None if span is None else iso_dates(np.array([span], dtype=np.int32))[0]
        fields |= {"ACTUALSYI": "", "NAVTYPE": "1" if span is None else "0"}
        fields["JZZZL"] = "0.00" if money else percent_text(change)
        fields |= {"SGZT": states[0], "SHZT": states[1], "FHFCZ": cash, "FHFCZ10": None, "FHFCBZ": ""}
        fields |= {"DTYPE": None, "FHSP": event.text if event else ""}
        texts.append(compact(fields))
    return texts


def lsjz_page(rows: list[str], total: int, page: int, size: int, fund_type: str, money: bool) -> str:
    """The JSON around lsjz rows; an unknown code has the same form with no rows."""
    code = next((code for prefix, code in FUND_TYPE_CODES if fund_type.startswith(prefix)), "001")
    return (
        f'{{"Data":{{"LSJZList":[{",".join(rows)}],"FundType":"{code if fund_type else ""}",'
        f'"SYType":{compact("每万份收益" if money else None)},"isNewType":false,"Feature":null}},'
        f'"ErrCode":0,"ErrMsg":null,"TotalCount":{total},"Expansion":null,'
        f'"PageSize":{size},"PageIndex":{page}}}'
    )


LSJZ_TOO_MANY = (
    '{"Data":null,"ErrCode":0,"ErrMsg":null,"TotalCount":0,"Expansion":null,"PageSize":0,"PageIndex":0}'
)


def trend_rows(view: View, rows: Rows) -> list[str]:
    """Objects of Data_netWorthTrend; the integer 0 stands for a return that was not published."""
    market = view.market
    table = zip(
        rows.tolist(),
        beijing_midnights(market.dates[rows]),
        view.values("unit_nav", rows),
        view.values("daily_return", rows),
        strict=True,
    )
    events, texts = market.events, []
    for row, x, unit, change in table:
        y = unit if unit == unit else "null"  # NaN differs from itself
        equity = change if change == change else "0"
        words = ""
        if row in events:
            words = f"{'分红' if events[row].dividend else '拆分'}：{events[row].text}"
        texts.append(f'{{"x":{x},"y":{y},"equityReturn":{equity},"unitMoney":"{words}"}}')
    return texts


def pair_rows(view: View, rows: Rows, column: str) -> list[str]:
    """`[x,value]` pairs: accumulated NAVs, incomes or yields; null where nothing was published."""
    pairs = zip(beijing_midnights(view.market.dates[rows]), view.values(column, rows), strict=True)
    return [f"[{x},{value}]" if value == value else f"[{x},null]" for x, value in pairs]


def fund_page(view: View, fund: int, first: list[str], second: list[str]) -> str:
    """pingzhongdata/{code}.js around the two series of a fund, without its BOM."""
    about = view.market.funds[fund]
    stamp = f"{view.now:%Y-%m-%d %H:%M:%S}"
    head = (
        f"/** * 测试数据 * @type {{arry}} *//*{stamp}*/var ishb={'true' if about.money else 'false'};"
        f"/*基金或股票信息*/var fS_name = {compact(about.name)};var fS_code = {compact(about.code)};"
        '/*原费率*/var fund_sourceRate="1.50";/*现费率*/var fund_Rate="0.15";'
        '/*最小申购金额*/var fund_minsg="10";'
        '/*基金持仓股票代码*/var stockCodes=[];/*基金持仓债券代码*/var zqCodes = "";'
        '/*收益率*//*近一年收益率*/var syl_1n="";/*近6月收益率*/var syl_6y="";'
        '/*近三月收益率*/var syl_3y="";/*近一月收益率*/var syl_1y="";'
    )
    if about.money:
        series = (
            f"/*每万份收益*/var Data_millionCopiesIncome = [{','.join(first)}];"
            f"/*7日年化收益率*/var Data_sevenDaysYearIncome = [{','.join(second)}];"
        )
    else:
        series = (
            "/*股票仓位测算图*/var Data_fundSharesPositions = [];"
            "/*单位净值走势 equityReturn-净值回报 unitMoney-每份派送金*/"
            f"var Data_netWorthTrend = [{','.join(first)}];"
            f"/*累计净值走势*/var Data_ACWorthTrend = [{','.join(second)}];"
        )
    return (
        f"{head}{series}"
        f'/*累计收益率走势*/var Data_grandTotal = [{{"name":{compact(about.name)},"data":[]}}];'
        "/*同类排名走势*/var Data_rateInSimilarType = [];/*同类排名百分比*/var Data_rateInSimilarPersent=[];"
        '/*规模变动 mom-较上期环比*/var Data_fluctuationScale = {"categories":[],"series":[]};'
        '/*持有人结构*/var Data_holderStructure ={"series":[],"categories":[]};'
        "/*现任基金经理*/var Data_currentFundManager =[] ;"
        "/*同类型基金涨幅榜（页面底部通栏）*/var swithSameType = [];"
    )


def dividend_rows(view: View, year: str) -> list[str]:
    """dt=8 rows, newest first: code, name, record date, ex date, amount, pay date, type."""
    return [
        compact([fund.code, fund.name, day, day, f"{event.dividend!r}", paid, "1"])
        for fund, event, day, paid in _visible_events(view, year)
        if event.dividend is not None
    ]


def split_rows(view: View, year: str) -> list[str]:
    """dt=9 rows, newest first: code, name, date, kind, ratio and an empty field."""
    return [
        compact([fund.code, fund.name, day, _split_kind(event), f"{event.split_ratio!r}", ""])
        for fund, event, day, _ in _visible_events(view, year)
        if event.split_ratio is not None
    ]


def _split_kind(event: Event) -> str:
    return "份额折算" if "折算" in event.text else "份额分拆"


def _visible_events(view: View, year: str) -> list[tuple[Fund, Event, str, str]]:
    """Published events of a year ('' for all) with their ex and pay dates, newest first, then by code."""
    market = view.market
    rows = market.event_rows
    owners = np.searchsorted(market.offsets, rows, side="right") - 1
    shown = view.visible(owners, rows)
    rows, owners = rows[shown], owners[shown]
    days = market.dates[rows]
    found = [
        (market.funds[owner], market.events[row], day, paid)
        for owner, row, day, paid in zip(
            owners.tolist(), rows.tolist(), iso_dates(days), iso_dates(days + 2), strict=True
        )
        if day.startswith(year)
    ]
    found.sort(key=lambda item: item[0].code)
    found.sort(key=lambda item: item[2], reverse=True)
    return found


def event_page(rows: list[str], total: int, page: int, size: int, prefix: str) -> str:
    """`var pageinfo=[pages,size,page]; var jjfh_data=[[…],…];` (jjcf_data for splits)."""
    info = compact([max(1, math.ceil(total / size)), size, page])
    return f"var pageinfo={info}; var {prefix}_data=[{','.join(rows)}];var {prefix}_jjgs=[];"
