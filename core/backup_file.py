"""A backup as a file: the database compressed with zstd, and behind it a manifest that says what must be in it.

The manifest is a frame that every zstd skips: `zstd -dc FILE` alone gives back the SQLite file or the SQL text.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from core.errors import BackupUnusable, NavKeeperError

LEVEL = 3
SKIPPED_FRAME = 0x184D2A5E  # any of sixteen numbers whose frames a reader passes over
END = struct.Struct("<I8s")  # the manifest's length, once more, and what tells that it is one
MARK = b"navkeepr"
HEAD = struct.Struct("<II")
CHUNK = 1 << 20
NAME = re.compile(r"navkeeper-(\d{8}T\d{6})Z-([0-9a-z]+)\.(db|sql)\.zst")
STAMP = "%Y%m%dT%H%M%S"
SUFFIX = {"sqlite": "db", "mysql": "sql"}
PART = ".part"


@dataclass(frozen=True)
class Manifest:
    """What a backup holds. `counts`: rows of each table; `made_at`: when it was begun, UTC."""

    kind: str  # sqlite or mysql
    schema: str
    made_at: str
    size: int  # bytes before they were compressed
    counts: dict[str, int]


def name_of(kind: str, schema: str, now: datetime) -> str:
    return f"navkeeper-{now.astimezone(UTC).strftime(STAMP)}Z-{schema}.{SUFFIX[kind]}.zst"


def made_at(path: Path) -> datetime | None:
    """When a backup was begun, by its name; None for any other file."""
    found = NAME.fullmatch(path.name)
    return datetime.strptime(found[1], STAMP).replace(tzinfo=UTC) if found else None


@contextmanager
def named_when_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which takes its place when all is written and on the disk.

    Raises NavKeeperError where it cannot be written, and then leaves nothing behind.
    """
    part = path.with_name(f".{path.name}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb"):
            pass
    except FileExistsError:
        raise NavKeeperError(
            f"{part} is being written by another backup; remove it if none is at work"
        ) from None
    except OSError as error:
        raise NavKeeperError(f"no backup can be written to {path.parent}: {error.strerror}") from None
    try:
        yield part
        synced(part)
        part.replace(path)
        synced(path.parent)
    except OSError as error:
        raise NavKeeperError(f"the backup {path} could not be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def synced(path: Path) -> None:
    """A file or folder on the disk for certain."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def compressed_into(path: Path) -> Iterator[BinaryIO]:
    """A stream whose text ends compressed in `path`; `add_manifest` finishes the file afterwards."""
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor(LEVEL, write_checksum=True).stream_writer(file, closefd=False) as stream,
    ):
        yield stream


def add_manifest(path: Path, manifest: Manifest) -> None:
    text = json.dumps(asdict(manifest)).encode()
    text += END.pack(len(text), MARK)
    with path.open("ab") as file:
        file.write(HEAD.pack(SKIPPED_FRAME, len(text)) + text)


def read_manifest(path: Path) -> Manifest:
    """What a backup should hold, read from its end. Raises BackupUnusable."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - END.size))
            length, mark = END.unpack(file.read(END.size))
            if mark != MARK or length > end:
                raise ValueError
            file.seek(end - END.size - length)
            return Manifest(**json.loads(file.read(length)))
    except OSError as error:
        raise BackupUnusable(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, struct.error):
        raise BackupUnusable(f"{path} is no backup of NavKeeper, or its end is missing") from None


def copy_out(path: Path, write: Callable[[bytes], Any], tell: Callable[[int], None]) -> int:
    """Give the text of a backup to `write`, piece by piece; its length. Raises BackupUnusable."""
    total = 0
    try:
        with path.open("rb") as file:
            stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            while piece := stream.read(CHUNK):
                write(piece)
                total += len(piece)
                tell(total)
    except zstandard.ZstdError as error:
        raise BackupUnusable(f"{path} is damaged: {error}") from None
    return total


def unpack(path: Path, to: Path, manifest: Manifest, tell: Callable[[int], None]) -> None:
    """The text of a backup as a file on the disk. Raises BackupUnusable, NavKeeperError where the disk is full."""
    try:
        with to.open("wb") as file:
            size = copy_out(path, file.write, tell)
        synced(to)
    except OSError as error:
        with suppress(OSError):
            to.unlink()
        raise NavKeeperError(f"{to} cannot be written: {error.strerror}") from None
    if size != manifest.size:
        raise BackupUnusable(f"{path} holds {size} bytes, and should hold {manifest.size}")


def compare(path: Path, found: dict[str, int], manifest: Manifest) -> None:
    """Raises BackupUnusable naming the first table that has not the rows it should."""
    for name in sorted(found.keys() | manifest.counts.keys()):
        if found.get(name) != manifest.counts.get(name):
            raise BackupUnusable(
                f"{path}: {name} has {found.get(name)} rows, and should have {manifest.counts.get(name)}"
            )
