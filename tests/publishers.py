"""Processes that publish at once: `python -m tests.publishers COUNT PUBLISHER TOPIC… [--rolled-back SHARE]`.

Each numbers what it publishes to a topic from 1 on, as far as it is committed; now and then a transaction is rolled
back, or waits before its commit, so that later numbers are committed first.
"""

from __future__ import annotations

import argparse
import random
import time
from datetime import UTC, datetime

from config.settings import load_settings
from core import db
from scheduler.events import publish


class RolledBack(Exception):
    """On purpose."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("publisher", type=int)
    parser.add_argument("topics", nargs="+")
    parser.add_argument("--rolled-back", type=float, default=0.0, help="a share of the transactions")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before a commit, at the most")
    parser.add_argument("--each", type=int, default=1, help="events in a transaction")
    parser.add_argument("--file", default="")
    words = parser.parse_args()
    chance = random.Random(words.publisher)
    engine = db.connect(load_settings().database_url())
    done = dict.fromkeys(words.topics, 0)
    while sum(done.values()) < words.count:
        topic = chance.choice(words.topics)
        try:
            with db.write(engine) as connection:
                for number in range(done[topic] + 1, done[topic] + 1 + words.each):
                    payload = {"publisher": words.publisher, "number": number, "file": words.file}
                    publish(connection, topic, payload, datetime.now(UTC))
                time.sleep(chance.random() * words.pause)
                if chance.random() < words.rolled_back:
                    raise RolledBack
        except RolledBack:
            continue
        done[topic] += words.each
    print(" ".join(f"{topic}={number}" for topic, number in done.items()))


if __name__ == "__main__":
    main()
