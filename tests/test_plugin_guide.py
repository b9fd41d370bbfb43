"""docs/plugins.md, followed to the letter in an empty folder."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import MetaData, Table, select

from config.settings import ROOT, load_settings
from core import db

GUIDE = ROOT / "docs" / "plugins.md"
TEMPLATE = ROOT / "docs" / "plugin-template"


class Block(NamedTuple):
    language: str
    options: dict[str, str]
    text: str


def blocks() -> list[Block]:
    found = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    return [
        Block(language, dict(word.split("=", 1) for word in options.split()), text)
        for language, options, text in found
    ]


def script() -> str:
    """Everything that is to be typed or written, in order."""
    parts = ["set -ex"]
    for block in blocks():
        if "file" in block.options:
            parts.append(f"cat > {block.options['file']} <<'END OF FILE'\n{block.text}END OF FILE")
        elif block.language == "sh":
            parts.append(block.text)
    return "\n".join(parts)


def python_beside(folder: Path) -> Path:
    """A virtual environment that has what this one has: what the guide installs goes there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    ours = sysconfig.get_paths()["purelib"]
    paths = {"base": str(folder), "platbase": str(folder)}
    theirs = Path(sysconfig.get_path("purelib", "venv", paths))
    (theirs / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n{ROOT}\n", encoding="utf-8")
    return folder / "bin" / "python"


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


def test_the_template_is_what_the_guide_shows() -> None:
    shown = {block.options["file"]: block.text for block in blocks() if "file" in block.options}
    for path in TEMPLATE.iterdir():
        assert shown[path.name] == path.read_text(encoding="utf-8")


@pytest.mark.timeout(280)
def test_the_guide_works_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    environment = {
        **os.environ,
        "NAVKEEPER": str(ROOT),
        "PYTHON": str(python_beside(tmp_path / "venv")),
        "NAVKEEPER_HEALTH_PORT": str(free_port()),
        "NAVKEEPER_LANGUAGE": "en",
    }
    with (tmp_path / "said").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            ["bash", "-c", script()],
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=240)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            os.killpg(process.pid, signal.SIGTERM) if code != 0 else None
        said.seek(0)
        text = said.read()
    assert code == 0, text[-4000:]
    monkeypatch.setenv("NAVKEEPER_HOME", str(folder / "home"))
    engine = db.connect(load_settings().database_url())
    with db.read(engine) as connection:
        table = Table("greetings_said", MetaData(), autoload_with=connection)
        rows = connection.execute(select(table.c.business_date, table.c.text)).all()
    engine.dispose()
    texts = Counter((row.business_date, row.text) for row in rows)
    assert {text for _day, text in texts} <= {f"Hello, {name}!" for name in ("market", "reader", "echo")}
    assert any(text == "Hello, echo!" for _day, text in texts)  # the event's job came after all
    # What a job missed may be caught up too: as often as it greets, on each date.
    assert all(number == (3 if "market" in text else 1) for (_day, text), number in texts.items())
    for wanted in (
        'navkeeper_plugin_state{plugin="greetings",state="ENABLED"} 1.0',
        "queued: greetings for",
        "times      integer  1",
    ):
        assert wanted in text, text[-4000:]
