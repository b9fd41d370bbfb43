"""compare_sources: the night once more from a second source, held against what is believed and what is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import ConfigurationError, NotPublished
from scheduler.job import RunStatus
from scheduler.sources import make_source
from scheduler.task_params import SourceParams

if TYPE_CHECKING:
    from scheduler.run_context import RunContext


def compare_sources(context: RunContext, params: SourceParams) -> None:
    """Stage a second source's newest rows, note where they differ, release what they confirm.

    A date that is older there is lag and compared with nothing. What is believed already stays: a difference is a
    finding for people; before validation it holds the row. Raises ConfigurationError without a second source.
    """
    from core.collector import Fetched, FundCollector, nothing_published
    from core.data_pipeline import compare
    from scheduler.task_parts import calendar_of
    from scheduler.tasks import pipeline_for, recalculate

    named = params.source or context.settings.second_source
    if named is None:
        raise ConfigurationError(
            "no second source is set; set NAVKEEPER_SECOND_SOURCE to tushare, eastmoney or a file or folder"
        )
    pipeline = pipeline_for(context.engine, calendar_of(context))
    source = make_source(context.settings, named)
    try:
        collector = FundCollector(context.engine, source)
        # Its own words for names and types would take the place of the first source's.
        fetched = Fetched(context.business_date, [], source.latest())
        if not fetched.advanced:
            raise NotPublished(nothing_published(fetched))
        now = context.now()
        with context.commit() as commit:
            batch_id = collector.stage(commit.connection, fetched, now, context.run_id, kind="second")
            found = compare(commit.connection, pipeline, batch_id, now)
            recalculate(
                commit.connection, context.business_date, now, found.second_look.funds, "second source"
            )
            said = f"{found.checked} rows compared, {found.failed} differ, "
            said += f"rows released from quarantine: {len(found.second_look.released)}"
            many = found.failed > pipeline.thresholds.share_quarantined * max(found.checked, 1)
            commit.end(RunStatus.PARTIAL if many else RunStatus.SUCCESS, found.checked, said)
    finally:
        source.close()
