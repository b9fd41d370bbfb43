"""A plugin for NavKeeper with one task and one table."""

import sqlalchemy as sa

from scheduler.plugin import Params, Plugin, Task, TaskResult

METADATA = sa.MetaData()
GREETING = sa.Table(
    "greetings_said",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("business_date", sa.Date, nullable=False),
    sa.Column("text", sa.String(200), nullable=False),
)


class GreetParams(Params):
    name: str = "world"
    times: int = 1


def greet(context, params):
    context.log.info("greeting %s for %s", params.name, context.business_date)
    rows = []
    for number in range(params.times):
        context.progress(number + 1, params.times, "greetings")
        rows.append({"business_date": context.business_date, "text": f"Hello, {params.name}!"})

    def write(connection):
        connection.execute(sa.delete(GREETING).where(GREETING.c.business_date == context.business_date))
        connection.execute(sa.insert(GREETING), rows)
        context.publish(connection, "greetings.said", {"name": params.name})

    return TaskResult(records=len(rows), data={"name": params.name}, write=write)


def create(op):
    op.create_table(
        "greetings_said",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("business_date", sa.Date, nullable=False),
        sa.Column("text", sa.String(200), nullable=False),
    )


PLUGIN = Plugin(
    id="greetings",
    version="1.0",
    name="Greetings",
    description="Says hello, and remembers that it did.",
    tasks=(Task("greetings.greet", "Greet", "Writes greetings.", GreetParams, greet, "greetings_said"),),
    tables=METADATA,
    migrations=(create,),
)
