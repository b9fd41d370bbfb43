"""The rooms of the house: who imports whom, who reads clock and environment, and how long a file may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("core", "scheduler", "config", "bench", "tests")
PRODUCT = ("core", "scheduler", "config")
CLOCKS = {
    "datetime.now",
    "datetime.today",
    "datetime.utcnow",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "date.today",
    "datetime.date.today",
    "pd.Timestamp.now",
    "pd.Timestamp.today",
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.monotonic",
    "time.perf_counter",
    "time.sleep",
}


def files(*rooms: str) -> list[Path]:
    found = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    return [*found, *([ROOT / "main.py"] if "scheduler" in rooms else [])]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Modules that the file imports, at its top or inside a function."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{'.' * node.level}{node.module or ''}"


def mentions(path: Path) -> Iterator[str]:
    """Dotted names that the file uses, such as time.sleep; names imported from time by their home."""
    homes: dict[str, str] = {}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "os"):
            homes |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.Name) and node.id in homes:
            yield homes[node.id]


def test_there_are_files_to_look_at() -> None:
    assert {"core/rules.py", "core/sources/base.py", "main.py"} <= {name(path) for path in files(*PRODUCT)}


@pytest.mark.parametrize(
    ("room", "closed"), [("core", ("scheduler", "config", "main")), ("config", ("scheduler",))]
)
def test_imports_run_one_way(room: str, closed: tuple[str, ...]) -> None:
    wrong = [(name(path), module) for path in files(room) for module in imports(path)]
    assert [found for found in wrong if found[1].split(".")[0] in closed] == []
    assert [found for found in wrong if found[1].startswith(".")] == []


def test_only_settings_read_the_environment() -> None:
    readers = {name(path) for path in files(*PRODUCT) if {"os.environ", "os.getenv"} & set(mentions(path))}
    assert readers == {"config/settings.py"}


def test_the_domain_reads_no_clock() -> None:
    found = {(name(path), used) for path in files("core") for used in CLOCKS & set(mentions(path))}
    elsewhere = {pair for pair in found if not pair[0].startswith("core/sources/")}
    assert elsewhere == {("core/standin/__main__.py", "datetime.now")}
    assert {used for path, used in found if path.startswith("core/sources/")} <= {
        "time.monotonic",
        "time.sleep",
    }


def test_no_naive_instant_anywhere() -> None:
    naive = []
    for path in files(*ROOMS):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in CLOCKS:
                called = ast.unparse(node.func)
                zoned = called.endswith(".now") and (node.args or node.keywords)
                if called.startswith(("datetime", "date", "pd")) and not zoned:
                    naive.append((name(path), node.lineno))
        if path != Path(__file__) and "utcnow" in path.read_text(encoding="utf-8"):
            naive.append((name(path), 0))
    assert naive == []


def test_broad_excepts_only_where_somebodys_code_is_called() -> None:
    broad = []
    for path in files(*ROOMS):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                if caught == "everything" or {"Exception", "BaseException"} & set(
                    caught.strip("()").split(", ")
                ):
                    broad.append((name(path), caught))
    assert broad == [("scheduler/deliver.py", "Exception"), ("scheduler/runner.py", "Exception")]


def test_no_file_over_500_lines() -> None:
    long = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files(*ROOMS)}
    assert {path: lines for path, lines in long.items() if lines > 500} == {}


def test_no_function_over_50_lines() -> None:
    """The docstring, which says shapes, units and sources, is not counted."""
    long = []
    for path in files(*PRODUCT):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef) and "migrations" not in path.parts:
                said = node.body[0]
                words = (
                    said.end_lineno - said.lineno + 1 if ast.get_docstring(node) and said.end_lineno else 0
                )
                if (node.end_lineno or 0) - node.lineno + 1 - words > 50:
                    long.append((name(path), node.name))
    assert long == []
