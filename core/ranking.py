"""Where a fund stands among its kind: rank, percentile and quartile of a metric. Pure, on arrays.

Peers are the funds of one type (core.fund_category) with a value of the metric. The share classes of a fund
(core.background.family_of) hold one portfolio and count once: for each metric its class with the most NAVs
among those that have a value, of equal ones the lowest code, stands for it. Another class gets the rank it
would have in that one's place.

Rank 1 is the best; equal values share the best of their ranks, and the next value's rank is as if they had
not. Percentile is the share of the other peers that are not better, in percent: 100 for the best, 0 for the
last. Quartile is ceil(4*rank/peers): 1 is the best quarter. All are NaN where the metric is, and where there
are fewer than FEWEST_PEERS peers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.background import family_of
from core.fund_category import CATEGORIES
from core.rank_columns import RANKED, lower_is_better

FEWEST_PEERS = 10

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Standing(NamedTuple):
    """One metric of all funds, each (F,), NaN where the fund has no rank."""

    rank: Floats
    peers: Floats
    percentile: Floats
    quartile: Floats


class Peers(NamedTuple):
    """Who is compared with whom, each (F,): numbers of type and fund, and the order in which a class stands in."""

    kind: Ints
    fund: Ints
    seniority: Ints


def peers_of(
    codes: Sequence[str], names: Sequence[str], categories: Sequence[str], nav_counts: Ints
) -> Peers:
    """Peers of funds given by code, name, category and number of NAVs; one without a name is a fund of its own.

    A category that is not in CATEGORIES counts as "other".
    """
    number = {name: at for at, name in enumerate(CATEGORIES)}
    kind = np.array([number.get(name, number["other"]) for name in categories], dtype=np.int64)
    families: dict[tuple[int, str], int] = {}
    fund = np.array(
        [
            families.setdefault((of, family_of(name) or code), len(families))
            for code, name, of in zip(codes, names, kind.tolist(), strict=True)
        ],
        dtype=np.int64,
    )
    seniority = np.empty(len(fund), dtype=np.int64)
    seniority[np.lexsort((np.array(codes, dtype=str), -np.asarray(nav_counts)))] = np.arange(len(fund))
    return Peers(kind, fund, seniority)


def standing(values: Floats, peers: Peers, *, lower_better: bool = False) -> Standing:
    """Rank, peers, percentile and quartile of one metric (F,) of the whole market; infinite counts as null."""
    known = np.isfinite(values)
    worth = np.where(known, -values if lower_better else values, np.nan)
    stands = _standing_in(known, peers)
    # The value of the class that stands in for each fund: it does not count against its other classes.
    by_fund = np.full(int(peers.fund.max(initial=-1)) + 1, np.nan)
    by_fund[peers.fund[stands]] = worth[stands]
    rank, count = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for kind in np.unique(peers.kind[stands]):
        counted = np.sort(worth[stands & (peers.kind == kind)])
        if len(counted) < FEWEST_PEERS:
            continue
        mine = np.flatnonzero(known & (peers.kind == kind))
        better = len(counted) - np.searchsorted(counted, worth[mine], side="right")
        own = by_fund[peers.fund[mine]] > worth[mine]
        rank[mine] = 1 + better - own
        count[mine] = len(counted)
    percentile = 100 * (count - rank) / (count - 1)
    return Standing(rank, count, percentile, np.ceil(4 * rank / count))


def representatives(values: Floats, peers: Peers) -> Bools:
    """Which of the funds (F,) stand for their share classes in this metric: one for each fund with a value."""
    return _standing_in(np.isfinite(values), peers)


def _standing_in(known: Bools, peers: Peers) -> Bools:
    at = np.flatnonzero(known)
    at = at[np.argsort(peers.seniority[at])]
    _funds, first = np.unique(peers.fund[at], return_index=True)  # the first of each: the most senior
    found = np.zeros(len(known), dtype=bool)
    found[at[first]] = True
    return found


def rank_market(
    columns: Mapping[str, Floats | NDArray[np.datetime64]], peers: Peers, metrics: Iterable[str] = RANKED
) -> dict[str, Standing]:
    """The standings of these metrics, whose columns (F,) hold NaN for null. Raises KeyError for one without column."""
    return {
        name: standing(np.asarray(columns[name], dtype=np.float64), peers, lower_better=lower_is_better(name))
        for name in metrics
    }
