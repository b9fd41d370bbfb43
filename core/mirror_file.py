"""The file of the mirror: blocks of series, each with its checksum, and at its end a list of them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from core.ragged import Series

log = logging.getLogger(__name__)
FORM = "navkeeper-series-2"
TAIL = struct.Struct("<QI")  # length and checksum of the list
ARRAYS = {"values": "<f8", "offsets": "<i8", "codes": "<i4", "days": "<i4"}  # each begins where its kind may


class Block(NamedTuple):
    """Series of neighbouring funds: where they lie in the file, and what must be found there."""

    table: str
    last: int  # no fund of the block has a higher code, none of the next one a lower or equal one
    place: int
    lengths: dict[str, int]  # of ARRAYS
    checksum: int


@dataclass(frozen=True)
class MirrorFile:
    """An open file of one version of the database. It stays as it is though another takes its place."""

    path: Path
    file: BufferedReader
    version: int
    token: str
    blocks: list[Block]
    turn: threading.Lock = field(default_factory=threading.Lock)  # to read

    def read(self, block: Block) -> Series | None:
        """None where the bytes are not those that were written."""
        sizes = {name: np.dtype(kind).itemsize * block.lengths[name] for name, kind in ARRAYS.items()}
        content = np.empty(sum(sizes.values()), dtype=np.uint8)
        try:
            with self.turn:
                self.file.seek(block.place)
                count = self.file.readinto(content.data)
        except OSError as error:
            log.warning("the mirror %s cannot be read: %s; the database is", self.path, error)
            return None
        if count != len(content) or zlib.crc32(content.data) != block.checksum:
            log.warning("the mirror %s is damaged; what is lost is read from the database", self.path)
            return None
        ends = np.cumsum(list(sizes.values()))[:-1].tolist()
        parts = zip(ARRAYS.items(), np.split(content, ends), strict=True)
        return Series(**{name: part.view(kind) for (name, kind), part in parts})


@contextmanager
def opened(path: Path) -> Iterator[MirrorFile | None]:
    """The file, or None where there is none to rely on."""
    with contextlib.ExitStack() as stack:
        found = None
        try:
            file = stack.enter_context(path.open("rb"))
            found = _listed(path, file)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            log.warning("the mirror %s cannot be used: %s; everything is read", path, error)
        yield found


def _listed(path: Path, file: BufferedReader) -> MirrorFile:
    file.seek(-TAIL.size, os.SEEK_END)
    length, checksum = TAIL.unpack(file.read(TAIL.size))
    file.seek(-TAIL.size - length, os.SEEK_END)
    text = file.read(length)
    if zlib.crc32(text) != checksum:
        raise ValueError("its checksum is wrong")
    head = json.loads(text)
    if head["form"] != FORM:
        raise ValueError(f"it is {head['form']}")
    return MirrorFile(path, file, head["version"], head["token"], [Block(*each) for each in head["blocks"]])


class Writer:
    """A file in the making, which takes the place of the one at `path` whole or not at all.

    What goes wrong is logged and no more: the mirror is disposable.
    """

    def __init__(self, path: Path, version: int, token: str) -> None:
        self.path, self.version, self.token = path, version, token
        self.fresh = path.with_name(f"{path.name}.{os.getpid()}")
        self.blocks: list[Block] = []
        self.file: BinaryIO | None = None
        with self._disposable():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.fresh.open("wb")

    def add(self, table: str, last: int, series: Series) -> None:
        """Blocks come by table and code."""
        if self.file is None:
            return
        arrays = {
            name: np.ascontiguousarray(getattr(series, name), dtype=kind) for name, kind in ARRAYS.items()
        }
        with self._disposable():
            place, checksum = self.file.tell(), 0
            for array in arrays.values():
                content = array.view(np.uint8).data
                checksum = zlib.crc32(content, checksum)
                self.file.write(content)
            lengths = {name: len(array) for name, array in arrays.items()}
            self.blocks.append(Block(table, last, place, lengths, checksum))

    def finish(self) -> None:
        if self.file is None:
            return
        head = {"form": FORM, "version": self.version, "token": self.token, "blocks": self.blocks}
        text = json.dumps(head).encode()
        with self._disposable():
            self.file.write(text + TAIL.pack(len(text), zlib.crc32(text)))
            self.file.close()
            self.fresh.replace(self.path)
            self.file = None

    def close(self) -> None:
        """Leave nothing of an unfinished file."""
        if self.file is not None:
            self.file.close()
            self.file = None
            with contextlib.suppress(OSError):
                self.fresh.unlink(missing_ok=True)

    @contextmanager
    def _disposable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("the mirror %s could not be written: %s; the next run reads more", self.path, error)
            with contextlib.suppress(OSError):
                self.close()
