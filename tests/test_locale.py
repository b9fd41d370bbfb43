"""The Chinese catalogue holds every message, with the same placeholders, and is compiled."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from jinja2 import Environment
from jinja2.ext import extract_from_ast

from config.translation import LOCALE, N_, translator
from core import errors
from scheduler.cli import TASK_OF
from scheduler.jobs_file import JOBS_FILE, load_jobs
from scheduler.wording import CODES, JOBS, REASONS, WORDS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = LOCALE / "zh" / "LC_MESSAGES"


def messages_in_code() -> set[str]:
    files = [ROOT / "main.py", *(ROOT / "scheduler").rglob("*.py")]
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in files)
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    marked = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("_", "N_"))
    first = (call.args[0] for call in marked)
    return {message.value for message in first if isinstance(message, ast.Constant)} | messages_in_templates()


def messages_in_templates() -> set[str]:
    pages = (path.read_text(encoding="utf-8") for path in (ROOT / "scheduler" / "web").rglob("*.html"))
    calls = (call for page in pages for call in extract_from_ast(Environment().parse(page), ["_"]))
    return {message for _line, _name, message in calls if isinstance(message, str)}


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    with (FOLDER / "navkeeper.po").open("rb") as file:
        return read_po(file, locale="zh")


def placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"\{(\w*)[^}]*\}", text))


def test_every_message_is_translated_and_none_is_left_over(catalogue: Catalog) -> None:
    translated = {str(entry.id) for entry in catalogue if entry.id and entry.string and not entry.fuzzy}
    used = messages_in_code()
    assert len(used) > 50
    assert used - translated == set()
    assert translated - used == set()


def test_placeholders_agree(catalogue: Catalog) -> None:
    for entry in catalogue:
        assert placeholders(str(entry.id)) == placeholders(str(entry.string)), entry.id


def test_translations_fit_a_gbk_console(catalogue: Catalog) -> None:
    for entry in catalogue:
        str(entry.string).encode("gbk")


def test_the_compiled_catalogue_is_the_written_one(catalogue: Catalog) -> None:
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    assert (FOLDER / "navkeeper.mo").read_bytes() == compiled.getvalue(), "run: make locale"


def test_translators() -> None:
    assert translator("zh")("RUNNING") == "运行中"
    assert translator("en")("RUNNING") == "RUNNING"
    assert N_("RUNNING") == "RUNNING"
    with pytest.raises(FileNotFoundError):
        translator("fr")


def test_every_state_and_code_has_words() -> None:
    from scheduler.job import RunStatus
    from scheduler.verdict import STATES

    assert set(STATES) | {status.value for status in RunStatus} <= set(WORDS)
    source = (ROOT / "scheduler" / "verdict.py").read_text() + (
        ROOT / "scheduler" / "overview.py"
    ).read_text()
    written = set(re.findall(r'Reason\(\s*"[A-Z]+", "(\w+)"', source))
    assert {"behind", "thin", "gap"} <= written <= set(REASONS)
    assert {"daemon_absent", "daemon_stopped", "daemon_gone", "heartbeat_old"} <= set(REASONS)


def test_every_error_code_and_job_has_a_chinese_label() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {kind.code for kind in kinds if issubclass(kind, errors.NavKeeperError)} <= set(CODES)
    assert set(load_jobs(JOBS_FILE)) | {job for job, _task in TASK_OF.values()} <= set(JOBS)
    chinese = translator("zh")
    names = ("collect", "validate", "metrics", "sweep", "sweep_morning", "weekly", "backfill")
    labels = ["采集", "校验", "指标", "补采", "晨间补采", "周算", "回填"]
    assert [chinese(JOBS[job]) for job in names] == labels
    assert all(chinese(label) != code for code, label in CODES.items())
