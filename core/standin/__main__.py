"""`python -m core.standin`: serve a simulated or a recorded market until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from datetime import date, datetime, time, timedelta
from pathlib import Path

from core.standin.market import SHANGHAI, Market
from core.standin.recorded import recorded_market
from core.standin.server import StandinServer
from core.standin.simulated import simulated_market


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core.standin", description=__doc__)
    parser.add_argument("--market", choices=("simulated", "recorded"), default="simulated")
    parser.add_argument("--funds", type=int, default=1000, help="simulated: how many funds")
    parser.add_argument("--start", type=date.fromisoformat, help="simulated: first date (three years before)")
    parser.add_argument("--end", type=date.fromisoformat, help="simulated: last date (default: today)")
    parser.add_argument("--seed", type=int, default=1, help="simulated: the same seed gives the same market")
    parser.add_argument("--data", type=Path, help="recorded: parquet file of NAVs")
    parser.add_argument("--fund-list", type=Path, help="recorded: CSV with names and types")
    parser.add_argument("--index", type=Path, help="recorded: folder of index CSVs (CODE.csv: date, close)")
    parser.add_argument(
        "--publish-time",
        type=time.fromisoformat,
        default=time(18, 0),
        help="recorded: when a day's rows appear (18:00)",
    )
    parser.add_argument(
        "--now",
        type=datetime.fromisoformat,
        help="instant shown, 2025-12-01T20:00+08:00 (default: the last evening)",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    return parser


def _market(options: argparse.Namespace) -> Market:
    if options.market == "recorded":
        return recorded_market(options.data, options.publish_time, options.fund_list, options.index)
    import exchange_calendars

    calendar = exchange_calendars.get_calendar("XSHG")
    end = options.end
    start = options.start or end - timedelta(days=3 * 365 + 1)
    sessions = [session.date() for session in calendar.sessions]
    return simulated_market(options.funds, start, end, options.seed, sessions)


def main(arguments: list[str] | None = None) -> int:
    """Serve; prints one JSON line with the address when ready. Returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.market == "recorded" and options.data is None:
        parser.error("--market recorded needs --data FILE")
    if options.now is not None and options.now.tzinfo is None:
        parser.error("--now needs a time zone, as in 2025-12-01T20:00+08:00")
    if options.market == "simulated":
        options.end = options.end or datetime.now(tz=SHANGHAI).date()
        options.now = options.now or datetime.combine(options.end, time(23, 59), SHANGHAI)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        market = _market(options)
        standin = StandinServer(market, options.now, options.host, options.port)
    except (OSError, ValueError, KeyError) as error:
        print(f"standin: cannot serve: {error}", file=sys.stderr)
        return 1
    with standin as server:
        ready = {"url": server.url, "market": market.kind, "now": server.view.now.isoformat()}
        print(json.dumps(ready | {"funds": len(market.funds), "rows": int(market.dates.size)}), flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
