"""The crash matrix: killed at every named point, daemon, child or both, a night ends as if nothing had been."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, delete, insert, select
from sqlalchemy.engine import URL

from config.settings import ROOT
from core import db, schema
from core.crash_points import BOTH, PARENT
from core.initialise import initialise
from core.schema import job_command, job_pause, job_run
from core.standin import Market, StandinServer, simulated_market
from core.standin.market import View, iso_dates
from core.trading_calendar import library_sessions
from scheduler import commands
from scheduler.job import PENDING, TRANSITIONS, RunStatus
from tests.chat_servers import ChatServer
from tests.conftest import _new_database
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until
from tests.night_records import PINGED, effects, ledger, pings, rows

EVE, DAY, AFTER = date(2025, 11, 26), date(2025, 11, 27), date(2025, 11, 28)  # Wednesday to Friday
SINCE = date(2025, 11, 10)
FUNDS = 120
AT_ONCE = 4

DAEMON_POINTS = (
    *("daemon.leading", "command.answered", "fire.inserted", "fire.committed", "claim.written"),
    *("claim.committed", "child.started", "child.reaped", "end.recorded", "recover.ended"),
    *("release.moved", "release.committed"),
)
ALERT_POINTS = ("alert.claimed", "alert.sent", "alert.recorded")  # of the child that sends, here pings
EVERY_JOB = ("claimed", "written", "ended", "committed", "over")  # of each job: see run_context.py, runner.py
COLLECT = (
    *("collect.claimed", "collect.fetched", "collect.staged"),
    *("collect.written", "collect.ended", "collect.committed", "collect.over"),
)
VALIDATE = (
    *("validate.claimed", "validate.checked", "merge.held", "merge.navs", "merge.merged"),
    *("validate.written", "validate.ended", "validate.committed", "validate.over"),
)
METRICS = (
    *("metrics.claimed", "metrics.calculated", "metrics.cleared"),
    *("metrics.written", "metrics.ended", "metrics.committed", "metrics.over"),
)


@dataclass(frozen=True)
class Act:
    """A stretch of the story: nothing is due at `start`, by `due` everything is."""

    start: datetime
    due: datetime
    without: tuple[str, ...] = SWEEPS


ACTS = {
    "night": Act(at(DAY, 18), at(DAY, 20, 31)),
    "sweep": Act(at(DAY, 20, 58), at(DAY, 21, 1), tuple(job for job in SWEEPS if job != "sweep")),
    "backfill": Act(at(AFTER, 17), at(AFTER, 17, 2)),  # of DAY, whose night was slept through
}


@dataclass(frozen=True)
class Kill:
    point: str
    who: str  # daemon, child or both

    @property
    def armed(self) -> str:
        by_child = self.point not in DAEMON_POINTS
        return self.point + {"both": BOTH, "daemon": PARENT if by_child else "", "child": ""}[self.who]

    @property
    def interrupted(self) -> tuple[int, ...]:
        """How many attempts may end with it."""
        if self.point in ALERT_POINTS and self.who != "child":
            return (0, 1)  # whatever the daemon was at
        if self.point in ALERT_POINTS:
            return (0,)
        if self.point == "child.started":
            return (0, 1)  # the orphan takes its claim over before the next daemon looks, or it does not
        if self.point == "claim.committed":
            return (1,)
        if self.point.endswith(".over") and self.who != "child":
            return (0, 1)  # on a slow machine the daemon has claimed the next run by then
        done = self.point.endswith((".committed", ".over"))  # what is committed has succeeded
        return (0,) if self.who == "daemon" or done else (1,)


@dataclass(frozen=True)
class Plan:
    """A night and who is killed in it where: of a job's runs one at the most, so that none hides another."""

    kills: tuple[Kill, ...]
    act: str = "night"

    @property
    def start(self) -> datetime:
        """What was missed is caught up in another transaction; a command waits for 30 s."""
        special = {"fire.committed": at(DAY, 20, 29), "command.answered": ACTS["night"].due}
        return special.get(self.kills[0].point, ACTS[self.act].start)

    @property
    def deaths(self) -> int:
        """Of daemons."""
        return sum(kill.who != "child" for kill in self.kills)


def abreast(who: str) -> Iterator[Plan]:
    """Nights in which each job's child reaches one of its points."""
    for points in zip_longest(COLLECT, VALIDATE, METRICS):
        yield Plan(tuple(Kill(point, who) for point in points if point))


PLANS = (
    *(Plan((Kill(point, "daemon"),)) for point in DAEMON_POINTS if point != "recover.ended"),
    Plan((Kill("collect.fetched", "both"), Kill("recover.ended", "daemon"))),  # there must be what to recover
    *abreast("child"),
    *abreast("both"),
    Plan(
        (Kill("collect.claimed", "daemon"), Kill("merge.merged", "daemon"), Kill("metrics.ended", "daemon"))
    ),
    Plan((Kill("alert.claimed", "child"),)),
    Plan((Kill("alert.sent", "both"),)),
    Plan((Kill("alert.sent", "child"),)),
    Plan((Kill("alert.recorded", "daemon"),)),
    Plan((Kill("sweep.fetched", "both"), Kill("metrics.cleared", "child")), "sweep"),
    Plan((Kill("merge.navs", "child"), Kill("metrics.committed", "both")), "sweep"),
    Plan((Kill("sweep.ended", "both"), Kill("metrics.over", "child")), "sweep"),
    Plan((Kill("sweep.committed", "child"), Kill("metrics.calculated", "both")), "sweep"),
    Plan((Kill("history.judged", "child"), Kill("validate.written", "both")), "backfill"),
    Plan((Kill("merge.merged", "both"), Kill("metrics.written", "child")), "backfill"),
    Plan((Kill("history.marked", "both"), Kill("metrics.ended", "child")), "backfill"),
    Plan((Kill("history.merged", "child"), Kill("metrics.calculated", "both")), "backfill"),
)


class Night(DaemonProcess):
    """The daemon and its database, in a folder of its own."""

    def __init__(self, engine: Engine, home: Path, source: StandinServer, act: Act) -> None:
        super().__init__(engine, home, source.url, act.start, jobs_file(home, without=act.without))
        self.now = act.start
        self.kills: tuple[Kill, ...] = ()
        self.codes: list[int] = []  # with which daemons have ended

    def set_clock(self, now: datetime) -> None:
        super().set_clock(now)
        self.now = now

    def launch(self) -> None:
        """Start the daemon to die, or to have its child die, where that is still to be."""
        left = ",".join(kill.armed for kill in self.kills if not self.has_crashed(kill))
        with (self.home / "stderr").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "scheduler" / "run_scheduler.py")],
                cwd=self.home,
                env=self.environment | ({"NAVKEEPER_CRASH_AT": left} if left else {}),
                stderr=output,
                text=True,
            )

    def leads(self) -> bool:
        with db.read(self.engine) as connection:
            pid = connection.execute(select(schema.daemon.c.pid)).scalar()
        return self.process is not None and pid == self.process.pid

    def has_crashed(self, kill: Kill) -> bool:
        """Whether a process of this night left word that it dies there."""
        files = [self.home / "stderr", *self.home.glob("logs/runs/*.log")]
        word = f"crash point {kill.armed}\n"
        return any(word in file.read_text("utf-8", "replace") for file in files if file.exists())

    def tend(self) -> None:
        """Start again what died, and move the clock on by a minute while an attempt waits for its time."""
        assert self.process is not None
        with suppress(subprocess.TimeoutExpired):
            self.codes.append(self.process.wait(timeout=0.1))
            self.launch()
        waits = select(job_run.c.id).where(
            job_run.c.status == RunStatus.QUEUED, job_run.c.not_before > self.now
        )
        with db.read(self.engine) as connection:
            waiting = connection.execute(waits).first()
        if waiting is not None:
            self.set_clock(self.now + timedelta(minutes=1))

    def come_to(self, done: Callable[[], bool], what: str) -> None:
        def look() -> bool:
            self.tend()
            return done()

        until(look, bool, what)


# A new database has the first five.
NOT_COPIED = ("trade_calendar", "merge_lock", "cache_epoch", "event_order", "job_change", "daemon")
Copy = Sequence[tuple[Table, list[dict[str, Any]]]]


def copy_of(engine: Engine) -> Copy:
    tables = [table for table in schema.metadata.sorted_tables if table.name not in NOT_COPIED]
    with db.read(engine) as connection:
        given = {table: [column for column in table.c if column.computed is None] for table in tables}
        return [(t, [row._asdict() for row in connection.execute(select(*given[t]))]) for t in tables]


MIGRATING = threading.Lock()  # Alembic's context is global


@dataclass
class Story:
    """The undisturbed nights on one kind of database: where each act begins, and how it ends."""

    new_url: Callable[[Path], URL]
    evening: StandinServer
    late: StandinServer
    folder: Path
    begins: dict[str, Copy] = field(default_factory=dict)
    ends: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    @contextmanager
    def stage(self, act: str, home: Path, copy: Copy = ()) -> Iterator[Night]:
        """A daemon, not yet started, on a database of its own with that content."""
        home.mkdir()
        engine = db.connect(self.new_url(home))
        with MIGRATING:
            initialise(engine, ACTS[act].start)
        with db.write(engine) as connection:
            connection.execute(delete(schema.nav_version))  # a new one has its first
            for table, content in copy:
                if content:
                    connection.execute(insert(table), content)
        night = Night(engine, home, self.evening if act == "night" else self.late, ACTS[act])
        try:
            yield night
        finally:
            night.kill()
            if engine.dialect.name == "mysql":
                with engine.begin() as connection:
                    connection.exec_driver_sql(f"DROP DATABASE {engine.url.database}")
            engine.dispose()

    def play(self) -> None:
        """History and the night after it; then the sweep; and elsewhere a night that is slept through."""
        with self.stage("night", self.folder / "history") as night:
            stored = night.main("nav", "--from", str(SINCE), "--to", str(EVE))
            assert stored.returncode == 0, stored.stderr
            self.begins["night"] = self.begins["backfill"] = copy_of(night.engine)
        spoil(self.evening, at(DAY, 22))
        for act, runs in (("night", 3), ("sweep", 5), ("backfill", 3)):
            with self.stage(act, self.folder / act, self.begins[act]) as night:
                night.start()
                night.set_clock(ACTS[act].due)
                wanted = ["SUCCESS"] * runs
                until(partial(statuses, night), wanted.__eq__, act)
                self.ends[act] = effects(night.engine)
                self.begins.setdefault("sweep", copy_of(night.engine))


def statuses(night: Night) -> list[str]:
    return [run.status for run in night.runs(DAY)]


def spoil(source: StandinServer, now: datetime) -> None:
    """The pages of that instant: with a NAV that nobody believes, and one of an earlier day corrected."""
    source.set_now(now)
    market, latest = source.market, View(source.market, now).latest.tolist()
    for day, column, factor in ((DAY, "unit_nav", 10), (EVE, "accum_nav", 1.001)):
        code, row = next(
            (fund.code, row)
            for fund, row in zip(market.funds, latest, strict=True)
            if not fund.money and iso_dates(market.dates[[row]]) == [str(day)]
        )
        value = round(float(getattr(market, column)[row]) * factor, 4)
        source.add_fault("revised", fund_code=code, date=str(day), **{column: value})


@dataclass
class Outcome:
    plan: Plan
    attempts: str
    wrong: list[str]


def play(story: Story, plan: Plan) -> Outcome:
    """Kill, start again what died, wait for the end; what is wrong then, and how the attempts ended."""
    home = story.folder / f"{plan.act} {' '.join(kill.armed for kill in plan.kills)}"
    wanted = story.ends[plan.act]
    with (
        story.stage(plan.act, home, story.begins[plan.act]) as night,
        ChatServer(lambda: night.now) as switch,
    ):
        if plan.kills[0].point in ALERT_POINTS:
            night.environment["NAVKEEPER_HEARTBEAT_URL"] = f"http://{switch.address}/ping"
        try:
            disturb(night, plan)
            night.come_to(lambda: is_over(night, plan, wanted), "the end of an undisturbed night")
            night.kill()
            wrong = complaints(night, plan, wanted)
            if plan.kills[0].point in ALERT_POINTS and list(dict.fromkeys(switch.pinged)) != ["/start", ""]:
                wrong.append(f"the dead man's switch heard {switch.pinged}")
        except AssertionError as error:
            wrong = [f"{error}; {shown_runs(night)}"]
        return Outcome(plan, shown(attempts(night.engine)), wrong)


def disturb(night: Night, plan: Plan) -> None:
    """Have every point reached."""
    night.kills = plan.kills
    night.set_clock(plan.start)
    if plan.kills[0].point == "command.answered":
        with db.write(night.engine) as connection:
            commands.ask(connection, action="pause", requested_by="test", now=plan.start, job_id="weekly")
    night.launch()
    night.come_to(night.leads, "the daemon's first sign of life")
    night.set_clock(ACTS[plan.act].due)
    for kill in plan.kills:
        night.come_to(partial(night.has_crashed, kill), f"the crash at {kill.armed}")


def is_over(night: Night, plan: Plan, wanted: dict[str, list[Any]]) -> bool:
    """The runs are as they should be, and a daemon has looked at them since the last kill."""
    done = len(night.codes) == plan.deaths and night.leads() and ledger(night.engine) == wanted["job_run"]
    return done and (plan.kills[0].point not in ALERT_POINTS or pings(night.engine) == PINGED)


def shown_runs(night: Night) -> str:
    return ", ".join(f"run {run.id} {run.job_id} {run.status} ({run.reason})" for run in night.runs())


def attempts(engine: Engine) -> dict[int, tuple[str, list[str]]]:
    """Per run its job and how its attempts ended."""
    table = schema.run_attempt
    query = select(job_run.c.id, job_run.c.job_id, table.c.status)
    query = query.join(table, table.c.run_id == job_run.c.id).order_by(job_run.c.id, table.c.attempt)
    found: dict[int, tuple[str, list[str]]] = {}
    with db.read(engine) as connection:
        for run_id, job, status in connection.execute(query):
            found.setdefault(run_id, (job, []))[1].append(status)
    return found


def shown(ended: dict[int, tuple[str, list[str]]]) -> str:
    return ", ".join(f"{job} {'>'.join(states)}" for job, states in ended.values() if job != "backfill")


def complaints(night: Night, plan: Plan, undisturbed: dict[str, list[Any]]) -> list[str]:
    """What differs from the undisturbed night, and what may be in no night at all."""
    wrong = []
    for name, found in effects(night.engine).items():
        if found != undisturbed[name]:
            wrong.append(
                f"{name}: {len(found)} rows, not the {len(undisturbed[name])} of an undisturbed night"
            )
    if night.codes != [-signal.SIGKILL] * plan.deaths:
        wrong.append(f"daemons ended with {night.codes}")
    ended = [states for _job, states in attempts(night.engine).values()]
    if any(set(states[:-1]) - {"INTERRUPTED"} or states[-1] != "SUCCESS" for states in ended):
        wrong.append("attempts ended otherwise than by the kill or well")
    again = sum(len(states) - 1 for states in ended)
    if again not in {sum(counts) for counts in product(*(kill.interrupted for kill in plan.kills))}:
        wrong.append(f"{again} attempts were interrupted")
    if plan.kills[0].point == "command.answered":
        with db.read(night.engine) as connection:
            asked = connection.execute(select(job_command.c.status)).scalars().all()
        if asked != ["DONE"] or len(rows(night.engine, job_pause)) != 1:
            wrong.append(f"the pause was not carried out just once: {asked}")
    return wrong + broken_histories(night.engine)


def broken_histories(engine: Engine) -> list[str]:
    """Runs whose events do not follow upon each other by allowed moves to their present state, done well once."""
    wrong = []
    histories: dict[int, list[Any]] = defaultdict(list)
    with db.read(engine) as connection:
        event = schema.run_event
        for row in connection.execute(select(event).where(event.c.kind == "state").order_by(event.c.id)):
            histories[row.run_id].append(row)
        runs = connection.execute(select(job_run)).all()
    for run in runs:
        moves = [(row.from_status, row.to_status) for row in histories[run.id]]
        joined = [old for old, _new in moves] == [None, *(new for _old, new in moves[:-1])]
        allowed = all(RunStatus(new) in TRANSITIONS[RunStatus(old)] for old, new in moves[1:])
        once = [new for _old, new in moves].count("SUCCESS") == 1
        if not (joined and allowed and once and moves[-1][1] == run.status) or run.status in PENDING:
            wrong.append(f"run {run.id} of {run.job_id} is {run.status} after {moves}")
    return wrong


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(FUNDS, date(2025, 8, 1), DAY + timedelta(days=7), 7, library_sessions())


@pytest.fixture(params=["sqlite", "mariadb"])
def new_url(request: pytest.FixtureRequest) -> Callable[[Path], URL]:
    """Gives a fresh database of each kind."""
    if request.param == "sqlite":
        return lambda home: URL.create("sqlite", database=str(home / "navkeeper.db"))
    server: URL = request.getfixturevalue("mariadb")
    return lambda _home: _new_database(server)


@pytest.fixture
def story(new_url: Callable[[Path], URL], market: Market, tmp_path: Path) -> Iterator[Story]:
    with (
        StandinServer(market, now=at(DAY, 12)) as evening,
        StandinServer(market, now=at(DAY, 23, 30)) as late,
    ):
        found = Story(new_url, evening, late, tmp_path)
        found.play()
        yield found


@pytest.mark.timeout(900)
def test_whoever_is_killed_wherever_the_night_ends_as_if_undisturbed(
    story: Story, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    check_undisturbed(story)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(partial(play, story), PLANS))
    with capsys.disabled():
        print(f"\n{request.node.name}: night, point, who was killed, result, how the attempts ended")
        for number, done in enumerate(outcomes, 1):
            for kill in done.plan.kills:
                result = "BAD" if done.wrong else "ok"
                print(
                    f"{number:>3} {done.plan.act:<9}{kill.point:<19}{kill.who:<7}{result:<4}{done.attempts}"
                )
    bad = [f"{done.plan.kills}: {'; '.join(done.wrong)}" for done in outcomes if done.wrong]
    assert not bad, "\n".join(bad)


def check_undisturbed(story: Story) -> None:
    """What every cell is compared with is itself a night as it should be."""
    night = story.ends["night"]
    steps = ["fund_metrics", "fund_nav", "tmp_fund_nav"]
    logged = [(row[0], row[3]) for row in night["data_update_log"] if row[1] == DAY]
    assert logged == [(step, "SUCCESS") for step in steps]
    assert len([row for row in night["fund_nav"] if row[1] == DAY]) > FUNDS / 2
    assert [len(night[name]) for name in ("quarantine", "fund_nav_revision")] == [1, 1]
    assert len(night["money_fund_yield"]) > 0
    assert len(night["fund_metrics"]) > FUNDS / 2
    assert [(row[0], row[4]) for row in night["nav_batch"] if row[1] == DAY] == [("latest", "MERGED")]
    assert len(story.ends["sweep"]["fund_nav"]) > len(night["fund_nav"])
    assert "backfill_nav" in {row[1] for row in story.ends["backfill"]["job_run"] if row[2] == DAY}


def test_whoever_took_an_orphan_in_is_left_alone() -> None:
    code = "from core.crash_points import arm, reached; arm('x+parent,z'); reached('y'); reached('x')"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "crash point x+parent\n")


def test_every_point_of_the_code_is_in_the_matrix() -> None:
    text = "".join(
        path.read_text(encoding="utf-8")
        for name in ("core", "scheduler")
        for path in (ROOT / name).glob("*.py")
    )
    plain = set(re.findall(r'\breached\("([\w.]+)"\)', text))
    of_any_job = set(re.findall(r'\breached\(f"\{[\w.]+\}\.(\w+)"\)', text))
    played = {kill.point for plan in PLANS for kill in plan.kills}
    assert len(plain) >= 20
    assert plain <= played
    assert of_any_job == set(EVERY_JOB)
    assert {f"{job}.{point}" for job in ("collect", "validate", "metrics") for point in EVERY_JOB} <= played
