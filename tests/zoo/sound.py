"""A sound plugin: a task, a table, and its rows."""

from __future__ import annotations

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

    def write(connection):
        connection.execute(sa.insert(MARKS), [{"text": params.text}] * params.count)

    return TaskResult(params.count, data={"text": params.text}, write=write)


def secret(context, _params):
    context.log.warning("the secret is %s", context.secret("key"))
    return TaskResult()


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
