"""The child that sends: `python -m scheduler.alert_delivery`. It claims, sends outside of transactions, records.

Killed anywhere, what it had claimed is put back by the daemon and sent again.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row

from core import db
from core.crash_points import arm, reached
from core.errors import NavKeeperError
from scheduler import alert_outbox
from scheduler.alert_channels import Channel, channels_of, heartbeat_of
from scheduler.alert_dispatch import DIRECT
from scheduler.alert_rules import DATABASE, FAILURE, START
from scheduler.alert_senders import NotSent, ping, send
from scheduler.alert_store import OPENED, RECOVERED, REPEATED
from scheduler.alert_text import Message, Told, message
from scheduler.clock import Clock, clock_from
from scheduler.wording import cut, one_line

if TYPE_CHECKING:
    from config.settings import Settings

log = logging.getLogger(__name__)
PATH_OF = {START: "/start", FAILURE: "/fail"}  # as healthchecks.io has them; success is the address itself
NO_CHANNEL = "no channel took it"
ERROR = 300  # characters of what a channel says


class Post:
    """Sends by the first channel that takes a message; secrets are kept out of every error."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        from config.translation import translator

        self.channels = channels_of(settings)
        self.switch = heartbeat_of(settings)
        self.clock = clock
        self.translate = translator(settings.language)
        self.secrets = sorted(settings.secrets(), key=len, reverse=True)
        self.crash_at = settings.crash_at

    def clean(self, error: NotSent) -> str:
        """One line without secrets; cut only then, or half a secret could be left."""
        text = str(error)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return cut(one_line(text), ERROR)

    def tried(self, channel: Channel, content: Message) -> str | None:
        """Why the channel did not take it, or None."""
        try:
            send(channel, content, self.clock())
        except NotSent as error:
            return f"{channel.name}: {self.clean(error)}"
        return None

    def send(self, content: Message, used: Callable[[str], int]) -> tuple[str | None, str | None]:
        """The channel that took it, if one did; what was wrong with those before.

        `used`: how many messages a channel was sent within the last minute.
        """
        errors = []
        for channel in self.channels:
            if used(channel.name) >= channel.per_minute:
                errors.append(f"{channel.name}: {channel.per_minute} messages within a minute are its limit")
                continue
            error = self.tried(channel, content)
            if error is None:
                return channel.name, "; ".join(errors) or None
            log.warning("%s", error)
            errors.append(error)
        return None, "; ".join(errors) or NO_CHANNEL

    def ping(self, notice: str) -> tuple[str | None, str | None]:
        """As `send`, to the dead man's switch."""
        try:
            ping(f"{self.switch}{PATH_OF.get(notice, '')}")
        except NotSent as error:
            log.warning("heartbeat: %s", self.clean(error))
            return None, self.clean(error)
        return "heartbeat", None


def deliver(engine: Engine, post: Post) -> bool:
    """Send all that is due, pings first; whether all of it went out."""
    well = True
    for claim_next in (alert_outbox.claim_ping, alert_outbox.claim_message):
        while (claim := _claim(engine, post.clock(), claim_next)) is not None:
            well &= _deliver(engine, post, claim)
    return well


def _claim(
    engine: Engine, now: datetime, claim_next: Callable[[Connection, datetime], str | None]
) -> str | None:
    with db.write(engine) as connection:
        return claim_next(connection, now)


def _deliver(engine: Engine, post: Post, claim: str) -> bool:
    with db.read(engine) as connection:
        rows = alert_outbox.claimed(connection, claim)
        used = {
            channel.name: alert_outbox.sent_within_a_minute(connection, channel.name, post.clock())
            for channel in post.channels
        }
    attempts = max(row.attempts for row in rows)
    if attempts == 1:  # a proof kills it once: the next attempt shows what it left
        arm(post.crash_at)
    reached("alert.claimed")
    if rows[0].notice in alert_outbox.PINGS:
        channel, error = post.ping(rows[0].notice)
    else:
        content = message(told_of(rows), post.translate, post.clock())
        channel, error = post.send(content, used.__getitem__)
    reached("alert.sent")
    with db.write(engine) as connection:
        if channel is not None:
            alert_outbox.record_sent(connection, claim, channel, post.clock(), error)
        else:
            alert_outbox.record_failed(connection, claim, error or NO_CHANNEL, attempts, post.clock())
    reached("alert.recorded")
    arm(None)
    return channel is not None


def told_of(rows: Sequence[Row[Any]]) -> list[Told]:
    """Of each alert the last that is to be said: one that has recovered meanwhile is told as such."""
    last = {row.alert: Told.of(row, row.notice) for row in rows}
    order = (OPENED, REPEATED)
    return sorted(last.values(), key=lambda item: order.index(item.notice) if item.notice in order else 2)


def say(post: Post, text: str) -> bool:
    """The database's alert, from the daemon's memory: nothing is read or written."""
    given = json.loads(text)
    over = given["recovered_at"] and datetime.fromisoformat(given["recovered_at"])
    since = datetime.fromisoformat(given["opened_at"])
    told = Told(given["notice"], DATABASE, since, figures={}, recovered_at=over)
    assert told.notice in (OPENED, REPEATED, RECOVERED)  # noqa: S101 - the daemon's own words
    return post.send(message([told], post.translate, post.clock()), lambda _name: 0)[0] is not None


def main(argv: list[str]) -> int:
    """Exit code 0: all that was due went out; 1: some of it did not, or the database is away."""
    from config.logging_config import configure_logging
    from config.settings import load_settings

    settings = load_settings()
    configure_logging(settings.log_level, settings.secrets(), settings.logs / "alerts.log", console=False)
    try:
        post = Post(settings, clock_from(settings))
        if argv == [DIRECT]:
            return 0 if say(post, sys.stdin.read()) else 1
        return 0 if deliver(db.connect(settings.database_url()), post) else 1
    except NavKeeperError as error:
        log.error("%s: %s", error.code, error)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
