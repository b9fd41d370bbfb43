"""A sound plugin: a task, a table, and its rows."""

from __future__ import annotations

import time
from pathlib import Path

import sqlalchemy as sa

from scheduler.plugin import Params, Plugin, Task, TaskResult

METADATA = sa.MetaData()
MARKS = sa.Table(
    "sound_mark",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("text", sa.String(50), nullable=False),
)
print("printed while it is imported")


class MarkParams(Params):
    text: str
    count: int = 1
    until: str = ""  # a file, whose coming is waited for


def first(op):
    op.create_table(
        "sound_mark",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("text", sa.String(50), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
    )


def mark(context, params):
    context.progress(1, 1, "marks")
    while params.until and not Path(params.until).exists():
        time.sleep(0.02)

    def write(connection):
        connection.execute(sa.insert(MARKS), [{"text": params.text}] * params.count)

    return TaskResult(params.count, data={"text": params.text}, write=write)


def secret(context, _params):
    context.log.warning("the secret is %s", context.secret("key"))
    return TaskResult(status="PARTIAL", reason=f"could not ask with {context.secret('key')}")


PLUGIN = Plugin(
    id="sound",
    version="1.0",
    name="Sound",
    description="Writes marks.",
    tasks=(
        Task("sound.mark", "Mark", "Writes rows.", MarkParams, mark, "sound_mark"),
        Task("sound.secret", "Secret", "Logs a secret.", Params, secret),
    ),
    tables=METADATA,
    migrations=(first,),
)
