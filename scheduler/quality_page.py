"""The evidence of a night as one HTML file that needs nothing beside itself, light or dark as the reader likes."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from core.errors import StoreUnavailable
from scheduler.quality import quality
from scheduler.quality_text import LANGUAGE, sections, style_of, title
from scheduler.sections import Cell, Section
from scheduler.wording import Translate

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from scheduler.quality import Record

SAMPLES = 5
FUND_CODE = re.compile(r"[0-9]{6}")
STYLE = """\
:root { color-scheme: light dark; --text: #1c2024; --dim: #60646c; --page: #fcfcfd; --line: #d9dce1;
  --head: #f0f1f4; --green: #18794e; --yellow: #8f5b00; --red: #b4232c; --cyan: #0b6e8a; }
@media (prefers-color-scheme: dark) { :root { --text: #edeef0; --dim: #a0a4ac; --page: #16181c;
  --line: #363a42; --head: #22252b; --green: #4cc38a; --yellow: #f1b24a; --red: #ff8a8f; --cyan: #5cc8e2; } }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .75rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
div { overflow-x: auto; } p { color: var(--dim); white-space: pre-line; margin: .5rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: normal; white-space: nowrap; } td:last-child { overflow-wrap: anywhere; }
.right { text-align: right; } h1 + div td { border: 0; font-size: 1.1rem; }
.green, .yellow, .red, .cyan { font-weight: 600; white-space: nowrap; } td.dim { white-space: nowrap; }
.green { color: var(--green); } .yellow { color: var(--yellow); } .red { color: var(--red); }
.cyan { color: var(--cyan); } .dim { color: var(--dim); }
a { color: inherit; }
"""
# What one file needs, and nothing from elsewhere.
HEAD = """\
<!DOCTYPE html>
<html lang="{{ language }}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
{{ style }}</style>
</head>
"""
SECTION = """\
{% if section.rows %}
<div><table>
{% if section.headers | select | list %}
<thead><tr>
{% for head in section.headers %}
<th{{ class_of(section, loop.index0) }}>{{ head }}</th>
{% endfor %}
</tr></thead>
{% endif %}
<tbody>
{% for row in section.rows %}
<tr>
{% for cell in row %}
<td{{ class_of(section, loop.index0, cell) }}>{{ text_of(cell) }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table></div>
{% endif %}
{% if section.note %}<p>{{ section.note }}</p>{% endif %}

"""
PAGE = f"""\
{HEAD}<body>
{{% for section in sections %}}
<h{{{{ 1 if loop.first else 2 }}}}>{{{{ section.title }}}}</h{{{{ 1 if loop.first else 2 }}}}>
{SECTION}{{% endfor %}}
</body>
</html>
"""


def page(night: Record, translate: Translate) -> str:
    """The report as HTML; every text in it is escaped."""
    shown = sections(night, translate, held=len(night["quarantine"]["listed"]), example=SAMPLES)
    return rendered(PAGE, translate, title=title(night, translate), sections=shown)


def rendered(template: str, translate: Translate, *, style: str = "", **values: Any) -> str:
    """A page of HEAD and SECTIONs; `style` is added to the common one. Every text in it is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        language=translate(LANGUAGE),
        style=Markup(STYLE + style),  # noqa: S704 - ours
        class_of=_class_of,
        text_of=_text_of,
        **values,
    )


def _class_of(section: Section, column: int, cell: str | Cell = "") -> Markup:
    """The attribute that aligns and colours a cell; nothing of it comes from data."""
    names = ["right"] if column in section.right else []
    if isinstance(cell, Cell) and style_of(cell.state):
        names.append(style_of(cell.state))
    return Markup(' class="{}"').format(" ".join(names)) if names else Markup("")


def _text_of(cell: str | Cell) -> str | Markup:
    if isinstance(cell, str):
        return cell
    if FUND_CODE.fullmatch(cell.fund) is None:
        return cell.text
    link = Markup('<a href="https://fund.eastmoney.com/{}.html" rel="noopener noreferrer"><bdi>{}</bdi></a>')
    return link.format(cell.fund, cell.text)


def write_report(engine: Engine, business_date: date, folder: Path, translate: Translate) -> Path:
    """Write the report of a night as `folder`/YYYY-MM-DD.html, in the place of an older one; its path.

    A reader sees the old file or the new one, never a half of it. Raises NavKeeperError where it cannot be
    written, and as `quality` does.
    """
    night = quality(engine, business_date)
    path = folder / f"{night['business_date']}.html"
    write_page(path, page(night, translate))
    return path


def write_page(path: Path, text: str) -> None:
    """Write a file as a whole or not at all. Raises StoreUnavailable where it cannot be written."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise StoreUnavailable(f"the report {path} cannot be written: {error.strerror}") from None
