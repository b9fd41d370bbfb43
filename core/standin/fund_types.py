"""The kinds of funds a simulated market holds, and how each moves and publishes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class FundType(NamedTuple):
    """A fund type of the publisher; returns are daily fractions."""

    name: str
    weight: int  # how many of 27,000 real funds
    traded: float  # share of them on an exchange
    lag: int  # trading days from the NAV's date to its publication
    beta: float
    noise: float  # standard deviation of the fund's own return
    drift: float
    dividends: float  # a fund's dividends a year
    noun: str
    initials: str
    sound: str


FUND_TYPES = (
    FundType("混合型-偏股", 5572, 0.0, 0, 0.90, 0.0070, 0.00010, 0.06, "混合", "HH", "HUNHE"),
    FundType("指数型-股票", 5387, 0.27, 0, 1.00, 0.0055, 0.00005, 0.05, "指数", "ZS", "ZHISHU"),
    FundType("债券型-长债", 3516, 0.0, 0, 0.01, 0.0005, 0.00013, 1.20, "纯债", "CZ", "CHUNZHAI"),
    FundType("混合型-灵活", 2389, 0.0, 0, 0.60, 0.0060, 0.00010, 0.10, "灵活配置", "LHPZ", "LINGHUOPEIZHI"),
    FundType(
        "债券型-混合二级", 1792, 0.0, 0, 0.15, 0.0015, 0.00010, 0.40, "增强债券", "ZQZQ", "ZENGQIANGZHAIQUAN"
    ),
    FundType("混合型-偏债", 1404, 0.0, 0, 0.20, 0.0020, 0.00010, 0.20, "稳健混合", "WJHH", "WENJIANHUNHE"),
    FundType("股票型", 1115, 0.0, 0, 0.95, 0.0075, 0.00010, 0.04, "股票", "GP", "GUPIAO"),
    FundType("债券型-中短债", 1011, 0.0, 0, 0.00, 0.0002, 0.00010, 0.30, "短债", "DZ", "DUANZHAI"),
    FundType("货币型-普通货币", 967, 0.0, 0, 0.00, 0.0000, 0.00005, 0.00, "货币", "HB", "HUOBI"),
    FundType("债券型-混合一级", 950, 0.0, 0, 0.05, 0.0010, 0.00012, 0.60, "债券", "ZQ", "ZHAIQUAN"),
    FundType("指数型-固收", 673, 0.06, 0, 0.00, 0.0003, 0.00011, 0.50, "债券指数", "ZQZS", "ZHAIQUANZHISHU"),
    FundType("FOF-稳健型", 662, 0.0, 2, 0.15, 0.0010, 0.00010, 0.00, "稳健养老", "WJYL", "WENJIANYANGLAO"),
    FundType(
        "指数型-海外股票", 368, 0.23, 1, 0.30, 0.0110, 0.00030, 0.02, "海外指数", "HWZS", "HAIWAIZHISHU"
    ),
    FundType("FOF-均衡型", 340, 0.0, 2, 0.45, 0.0025, 0.00010, 0.00, "均衡养老", "JHYL", "JUNHENGYANGLAO"),
    FundType("FOF-进取型", 235, 0.0, 2, 0.70, 0.0040, 0.00010, 0.00, "进取配置", "JQPZ", "JINQUPEIZHI"),
    FundType("QDII-混合偏股", 120, 0.0, 1, 0.40, 0.0120, 0.00020, 0.02, "全球混合", "QQHH", "QUANQIUHUNHE"),
    FundType("QDII-普通股票", 88, 0.0, 1, 0.40, 0.0130, 0.00025, 0.02, "全球股票", "QQGP", "QUANQIUGUPIAO"),
    FundType("Reits", 80, 1.0, 0, 0.05, 0.0080, 0.00005, 2.00, "产业园", "CYY", "CHANYEYUAN"),
    FundType("混合型-平衡", 73, 0.0, 0, 0.50, 0.0045, 0.00010, 0.15, "平衡", "PH", "PINGHENG"),
    FundType("指数型-其他", 62, 0.27, 0, 0.20, 0.0090, 0.00015, 0.00, "商品指数", "SPZS", "SHANGPINZHISHU"),
    FundType("QDII-纯债", 60, 0.0, 1, 0.05, 0.0030, 0.00010, 0.40, "美元债", "MYZ", "MEIYUANZHAI"),
    FundType("混合型-绝对收益", 38, 0.0, 0, 0.05, 0.0020, 0.00008, 0.05, "对冲", "DC", "DUICHONG"),
    FundType("QDII-混合灵活", 29, 0.0, 1, 0.35, 0.0090, 0.00015, 0.02, "全球灵活", "QQLH", "QUANQIULINGHUO"),
    FundType("QDII-混合债", 23, 0.0, 1, 0.10, 0.0040, 0.00010, 0.30, "全球债券", "QQZQ", "QUANQIUZHAIQUAN"),
    FundType("QDII-商品", 23, 0.0, 1, 0.10, 0.0140, 0.00020, 0.00, "全球商品", "QQSP", "QUANQIUSHANGPIN"),
    FundType("QDII-FOF", 9, 0.0, 1, 0.30, 0.0080, 0.00015, 0.00, "全球配置", "QQPZ", "QUANQIUPEIZHI"),
    FundType("QDII-混合平衡", 8, 0.0, 1, 0.25, 0.0070, 0.00012, 0.02, "全球平衡", "QQPH", "QUANQIUPINGHENG"),
    FundType("QDII-REITs", 5, 0.0, 1, 0.30, 0.0120, 0.00010, 0.10, "全球地产", "QQDC", "QUANQIUDICHAN"),
    FundType("商品", 2, 0.0, 0, 0.10, 0.0100, 0.00020, 0.00, "期货", "QH", "QIHUO"),
)
MONEY_PREFIX = "货币型"


def type_counts(funds: int) -> list[int]:
    """How many of `funds` funds are of each type: in proportion, at least one of each if there is room."""
    floor = 1 if funds >= 2 * len(FUND_TYPES) else 0
    weights = np.array([t.weight for t in FUND_TYPES], dtype=np.float64)
    exact = weights / weights.sum() * (funds - floor * len(FUND_TYPES))
    counts = np.floor(exact).astype(np.int64)
    for at in np.argsort(-(exact - counts), kind="stable")[: funds - floor * len(FUND_TYPES) - counts.sum()]:
        counts[at] += 1
    sizes: list[int] = (counts + floor).tolist()
    return sizes
