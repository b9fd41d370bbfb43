"""The dozen kinds of fund we treat differently, from the publisher's type words."""

from __future__ import annotations

CATEGORIES = ("stock", "mixed", "bond", "index", "qdii", "fof", "money", "reit", "commodity", "other")

# First match wins: 指数型-海外股票 publishes and moves like QDII, QDII-REITs is QDII before REITs,
# 债券型-混合二级 is a bond fund, 混合型-偏债 is not.
_WORDS = (
    ("QDII", "qdii"),
    ("海外", "qdii"),
    ("货币型-浮动净值", "bond"),
    ("货币", "money"),
    ("理财型", "money"),
    ("FOF", "fof"),
    ("REITS", "reit"),
    ("商品", "commodity"),
    ("指数", "index"),
    ("ETF", "index"),
    ("股票", "stock"),
    ("债券", "bond"),
    ("混合", "mixed"),
    ("债", "bond"),
)


def fund_category(fund_type: str) -> str:
    """One of CATEGORIES for a published type such as 混合型-灵活; `other` for an unknown or empty one.

    Money funds with a floating NAV (货币型-浮动净值) publish NAVs and count as bond funds.
    """
    upper = fund_type.upper()
    return next((category for word, category in _WORDS if word in upper), "other")
