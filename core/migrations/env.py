"""Alembic's entry: run the migrations on the engine that core.db hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Engine

from core.schema import metadata


def run() -> None:
    engine: Engine = context.config.attributes["engine"]
    with engine.connect() as connection:
        connection = connection.execution_options(write=True)
        context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()


run()
