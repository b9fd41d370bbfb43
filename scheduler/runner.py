"""One run, in one process: `python -m scheduler.runner RUN_ID CLAIM` as the daemon's child, or called by main.py.

The run's data, its data_update_log row and its final state commit in one transaction, fenced by the
claim. Died before: nothing happened. Died after: it succeeded.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from functools import partial
from types import FrameType
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row

from core import db
from core.crash_points import arm, reached
from core.errors import NavKeeperError, PluginDisabled
from scheduler import run_store
from scheduler.job import RunStatus
from scheduler.plugin_limits import (
    PRINTED_TOO_MUCH,
    WROTE_TOO_LONG,
    limit_task,
    limit_writing,
    watch_log,
)
from scheduler.plugin_loading import find_task
from scheduler.run_context import RunContext
from scheduler.run_store import End
from scheduler.task_catalogue import is_foreign, table_of
from scheduler.task_result import end_with

GRACE_SECONDS = 10.0  # between asking a process to end and killing it
ASKED_TO_END = 128 + signal.SIGTERM  # the exit code of a run that was


def execute(context: RunContext, run: Row[Any]) -> End:
    """Do one attempt of the run and record its end; never raises."""
    context.log.info("run %d: %s for %s", run.id, run.task, run.business_date)
    try:
        task = find_task(context.engine, context.settings, run.task)
        end_with(context, run.task, task.function(context, task.params.model_validate_json(run.params)))
    except PluginDisabled as error:
        context.skip(str(error))
    except NavKeeperError as error:
        context.log.error("%s: %s", error.code, error)
        context.fail(f"{error.code}: {error}", retry=error.retry)
    except ValidationError as error:
        context.fail(
            f"usage: parameters do not fit: {error.errors(include_input=False, include_url=False)}",
            retry=False,
        )
    except MemoryError:
        context.log.exception("run %d failed", run.id)
        context.fail("out_of_memory: it needed more memory than it may have", retry=False)
    except Exception as error:
        context.log.exception("run %d failed", run.id)
        context.fail(
            f"internal_error: {type(error).__name__}; the traceback is in the run's log", retry=False
        )
    assert context.outcome is not None  # noqa: S101 - set by commit() or fail()
    end = context.outcome
    context.log.info(
        "run %d: %s, %d records %s", run.id, end.status.value, end.record_count, end.reason or ""
    )
    return end


def main(argv: list[str]) -> int:
    """The child's entry: take the claim over from the supervisor, then run."""
    signal.signal(signal.SIGTERM, _stop)
    from config.logging_config import configure_logging
    from config.settings import load_settings
    from config.translation import translator
    from scheduler.clock import clock_from
    from scheduler.heartbeat import signs_of_life
    from scheduler.process_identity import this_process

    run_id, claim = int(argv[0]), argv[1]
    settings = load_settings()
    configure_logging(settings.log_level, settings.secrets())
    engine = db.connect(settings.database_url())
    with db.write(engine) as connection:
        ours = run_store.hand_over(connection, run_id, claim, this_process())
        run = run_store.get_run(connection, run_id)
        table_name = table_of(connection, run.task) if run is not None else ""
    if not ours or run is None:
        logging.getLogger(__name__).error("run %d is not ours to do", run_id)
        return 1
    if run.attempt == 1:  # a proof kills a run once: the next attempt shows what it left
        arm(settings.crash_at)
    reached(f"{run.job_id}.claimed")
    clock, translate = clock_from(settings), translator(settings.language)
    context = RunContext(engine, settings, run, claim, clock, table_name=table_name, translate=translate)
    watch_log(partial(os._exit, PRINTED_TOO_MUCH))
    if is_foreign(run.task):
        limit_task()
        limit_writing(engine, partial(os._exit, WROTE_TOO_LONG))
    with signs_of_life(engine, run_id, claim, clock, _end_own_group):
        end = execute(context, run)
    reached(f"{run.job_id}.over")
    return 0 if end.status in (RunStatus.SUCCESS, RunStatus.PARTIAL, RunStatus.SKIPPED) else 1


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Asked to end: unwind, so that connections close and transactions roll back. Once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_own_group() -> None:
    """As the supervisor would end us: politely, then by force; grandchildren included."""
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        logging.getLogger(__name__).warning("asked to end: nothing more is written")
        logging.shutdown()
        os._exit(ASKED_TO_END)  # a thread may sit in a request; who recorded nothing needs no clean-up
    sys.exit(code)
