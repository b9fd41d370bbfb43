"""News: what an entry is about, how much it may matter, which way it leans, and which entries tell the same.

Rules, not a model: words in title and summary, so that anybody can see why an entry got what it got, and gets it
again. They know neither irony nor negation ("降息预期落空" counts as easing); take the figures for a sieve.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

# Class: how much it matters (0 to 100), and its words.
CLASSES: dict[str, tuple[int, tuple[str, ...]]] = {
    "policy": (
        60,
        (
            "国务院",
            "证监会",
            "发改委",
            "财政部",
            "政治局",
            "金融监管总局",
            "监管",
            "新规",
            "Federal Reserve",
            "美联储",
        ),
    ),
    "liquidity": (
        60,
        ("央行", "人民银行", "降准", "逆回购", "MLF", "公开市场", "流动性", "Shibor", "LPR", "降息", "加息"),
    ),
    "credit": (55, ("违约", "信用债", "城投", "展期", "评级下调", "债券", "国债", "default", "downgrade")),
    "macro": (50, ("CPI", "PPI", "PMI", "GDP", "社融", "M2", "失业率", "非农", "进出口", "通胀")),
    "fund": (45, ("基金", "ETF", "公募", "净值", "申购", "赎回", "清盘", "限购")),
    "manager": (55, ("基金经理", "离任", "增聘", "卸任", "离职")),
    "equity": (
        35,
        ("A股", "沪指", "创业板", "沪深300", "上证", "深成指", "港股", "恒生", "涨停", "跌停", "北向资金"),
    ),
}
URGENT = ("突发", "重磅", "紧急", "立案", "暂停", "熔断", "清盘", "违约", "降准", "降息", "加息")
GOOD = (
    "上涨",
    "大涨",
    "增长",
    "回升",
    "降准",
    "降息",
    "利好",
    "超预期",
    "反弹",
    "新高",
    "扩大",
    "改善",
    "净流入",
)
BAD = (
    "下跌",
    "大跌",
    "下滑",
    "回落",
    "加息",
    "违约",
    "利空",
    "不及预期",
    "跳水",
    "新低",
    "萎缩",
    "恶化",
    "净流出",
    "清盘",
    "立案",
)
URGENT_ADDS, CLASS_ADDS, OTHER = 20, 10, 10
SAME = 0.6  # share of common pairs of letters from which two titles with the same figures tell the same
_FIGURE = re.compile(r"\d+(?:\.\d+)?")


class Entry(NamedTuple):
    """What a feed says."""

    title: str
    summary: str
    link: str
    published_at: datetime


class Judged(NamedTuple):
    """`importance` 0 to 100, `mood` -100 to 100 (0: nothing said, or as much of both)."""

    classes: tuple[str, ...]
    importance: int
    mood: int


def plain(text: str) -> str:
    """Letters and digits alone, of one width and case: what two spellings of a title have in common.

    A point between digits stays: 1.0 is not 10.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"(?<!\d)\.|\.(?!\d)|[^\w.]|_", "", folded)


def digest(title: str) -> str:
    """SHA-256 of the plain title, in hex."""
    return hashlib.sha256(plain(title).encode()).hexdigest()


def judge(entry: Entry) -> Judged:
    """Importance: of the weightiest class, 10 for each other one, 20 for an urgent word; 10 for no class at all.

    Mood: 100 * (good - bad) / (good + bad) of the words found, each once.
    """
    text = plain(entry.title + " " + entry.summary)

    def found(words: Iterable[str]) -> int:
        return sum(plain(word) in text for word in words)

    classes = tuple(name for name, (_weight, words) in CLASSES.items() if found(words))
    importance = max((CLASSES[name][0] for name in classes), default=OTHER)
    importance += CLASS_ADDS * max(0, len(classes) - 1) + (URGENT_ADDS if found(URGENT) else 0)
    good, bad = found(GOOD), found(BAD)
    mood = round(100 * (good - bad) / (good + bad)) if good + bad else 0
    return Judged(classes, min(100, importance), mood)


def same_news(one: str, other: str) -> bool:
    """Whether two titles tell the same: all figures in common, and enough of their pairs of letters (Jaccard)."""
    first, second = plain(one), plain(other)
    if sorted(_FIGURE.findall(first)) != sorted(_FIGURE.findall(second)):
        return False
    left, right = _pairs(first), _pairs(second)
    return len(left & right) >= SAME * len(left | right)


def _pairs(text: str) -> set[str]:
    return {text[at : at + 2] for at in range(len(text) - 1)} or {text}


def fresh(entries: Iterable[Entry], known: Iterable[str]) -> list[Entry]:
    """The entries, oldest first, that neither a `known` title nor an earlier entry tells already."""
    told = list(known)
    digests = {digest(title) for title in told}
    found = []
    for entry in sorted(entries, key=lambda entry: (entry.published_at, entry.title)):
        own = digest(entry.title)
        if own in digests or any(same_news(entry.title, title) for title in told):
            continue
        digests.add(own)
        told.append(entry.title)
        found.append(entry)
    return found


def as_row(entry: Entry, source: str, now: datetime) -> dict[str, Any]:
    """The row of market_news."""
    judged = judge(entry)
    return {
        "digest": digest(entry.title),
        "published_at": entry.published_at,
        "title": entry.title,
        "summary": entry.summary,
        "link": entry.link,
        "source": source,
        "classes": f" {' '.join(judged.classes)} ",
        "importance": judged.importance,
        "mood": judged.mood,
        "fetched_at": now,
    }
