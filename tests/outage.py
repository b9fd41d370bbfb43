"""A night whose database goes away three times: before a claim, during a run, at a commit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

from sqlalchemy import Engine, select, text

from core import db
from core.initialise import initialise
from core.schema import merge_lock
from core.standin import StandinServer
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until
from tests.mariadb import MariaServer


def fresh_database(server: MariaServer, day: date) -> Engine:
    engine = db.connect(server.url.set(database="mysql"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE DATABASE navkeeper CHARACTER SET utf8mb4")
    engine.dispose()
    engine = db.connect(server.url.set(database="navkeeper"))
    initialise(engine, at(day, 12))
    return engine


def night_with_outages(
    server: MariaServer,
    standin: StandinServer,
    home: Path,
    day: date,
    away: Callable[[DaemonProcess], None],
) -> DaemonProcess:
    """Play it to its end; `away` passes the time of each outage. The daemon is stopped on return."""
    engine = fresh_database(server, day)
    process = DaemonProcess(engine, home, standin.url, at(day, 18), jobs_file(home, without=SWEEPS))
    with process:
        server.stop()
        process.set_clock(at(day, 19))
        standin.add_fault("stall", path="rankhandler", times=1)
        away(process)  # due, and not to be claimed
        server.start()
        process.reach(day, {"collect": "RUNNING"})
        until(lambda: standin.requests.total(), bool, "the child's request")
        server.stop()
        away(process)  # under way
        server.start()
        standin.clear_faults()
        process.set_clock(at(day, 19, 3))  # should it have ended meanwhile, its next attempt is due
        process.reach(day, {"collect": "SUCCESS"})
        with engine.connect() as holder:
            holder.execute(select(merge_lock).with_for_update())
            process.set_clock(at(day, 19, 30))
            until(lambda: waiting_for_a_lock(engine), bool, "the merge, in its last transaction")
            server.stop()
            holder.invalidate()
        away(process)  # not yet committed
        server.start()
        process.reach(day, {"validate": "QUEUED"})  # for its next attempt
        process.set_clock(at(day, 19, 32))
        process.reach(day, {"validate": "SUCCESS"})
        process.set_clock(at(day, 20, 30))
        process.reach(day, {"metrics": "SUCCESS"})
    return process


def waiting_for_a_lock(engine: Engine) -> bool:
    with db.read(engine) as connection:
        found = connection.execute(text("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")).one()
    return int(found[1]) > 0
