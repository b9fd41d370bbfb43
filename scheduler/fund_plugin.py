"""FUNDS: the fund tasks, a plugin like any other."""

from __future__ import annotations

from scheduler.backfill_task import BackfillParams, backfill_nav
from scheduler.backup_task import back_up
from scheduler.housekeeping import SIZE, cleanup, monthly_report, size_watch
from scheduler.plugin import BUILT_IN, Plugin, Task
from scheduler.reference_task import ReferenceParams, collect_reference
from scheduler.repair_task import RepairParams, repair_history
from scheduler.second_task import compare_sources
from scheduler.task_params import Params, SourceParams
from scheduler.tasks import (
    MetricsParams,
    ValidateParams,
    calculate_metrics,
    collect_nav,
    sweep_nav,
    validate_nav,
    weekly_full_calc,
)

FUNDS = Plugin(
    id=BUILT_IN,
    version="1.0",
    name="Funds",
    description="The market's NAVs: collected, validated, measured, mended and kept.",
    tasks=(
        Task(
            "collect_nav",
            "Collection",
            "The newest NAV of every fund, staged as one batch.",
            SourceParams,
            collect_nav,
            "tmp_fund_nav",
        ),
        Task(
            "validate_nav",
            "Validation",
            "Judges the night's staged batch and merges what can be believed.",
            ValidateParams,
            validate_nav,
            "fund_nav",
        ),
        Task(
            "calculate_metrics",
            "Metrics",
            "Returns, risk, ranks and scores of all funds.",
            MetricsParams,
            calculate_metrics,
            "fund_metrics",
        ),
        Task(
            "weekly_full_calc",
            "Weekly",
            "Everything measured again from the database; the week's report.",
            Params,
            weekly_full_calc,
            "fund_metrics",
        ),
        Task(
            "backfill_nav",
            "Back-fill",
            "History of all funds, or of some.",
            BackfillParams,
            backfill_nav,
            "fund_nav",
        ),
        Task(
            "compare_sources",
            "Second source",
            "Holds a second source against the first.",
            SourceParams,
            compare_sources,
            "tmp_fund_nav",
        ),
        Task(
            "sweep_nav",
            "Late sweep",
            "What was published or corrected since the collection.",
            SourceParams,
            sweep_nav,
            "fund_nav",
        ),
        Task(
            "repair_history",
            "Repair",
            "Fills holes in the history.",
            RepairParams,
            repair_history,
            "fund_nav",
        ),
        Task(
            "collect_reference",
            "Reference",
            "Fund list, dividends, splits and index closes.",
            ReferenceParams,
            collect_reference,
            "fund_event",
        ),
        Task("cleanup", "Cleanup", "Removes what was kept long enough.", Params, cleanup, "expired"),
        Task(
            "size_watch",
            "Size watch",
            "How large the database is and how long the disk lasts.",
            Params,
            size_watch,
            SIZE,
        ),
        Task(
            "monthly_report",
            "Monthly report",
            "The month as a page and as Markdown.",
            Params,
            monthly_report,
            "monthly",
        ),
        Task("back_up", "Backup", "A checked copy of the database.", Params, back_up, "backup"),
    ),
)
TASKS: dict[str, Task] = {task.id: task for task in FUNDS.tasks}
