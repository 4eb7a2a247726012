"""Completions that were paid for are kept: an SQLite store from which a rerun takes what it has and samples the rest.

A completion is found by everything that decides it: the engine's fingerprint (kind, weights, precision), the prompt's
token ids, the sampling parameters and the seed. SQLite's write-ahead log makes each commit all or nothing, so a run
that is killed at any moment loses what wasn't committed yet, about a second of sampling, and never tears a record.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from whetstone.engines.base import Completion, Engine, Request
from whetstone.engines.progress import Progress, held
from whetstone.errors import UserError

COMMIT_SECONDS = 0.5
COMMIT_RECORDS = 64
_CHUNK = 500  # keys per query, below every SQLite's limit on bound values
_TABLE = """CREATE TABLE IF NOT EXISTS completions (
    key BLOB NOT NULL, sample INTEGER NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    token_ids BLOB NOT NULL, logprobs BLOB NOT NULL, PRIMARY KEY (key, sample))"""


def key_of(fingerprint: str, token_ids: Sequence[int], request: Request) -> bytes:
    """16 bytes that name a request to an engine."""
    s = request.sampling
    settings = (fingerprint, s.max_tokens, s.temperature, s.top_p, s.n, s.stop, request.seed)
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    digest.update(array("q", token_ids).tobytes())
    return digest.digest()


class Journal:
    """The store at `path`, held by this process from `with` to its end.

    Raises:
        UserError: another process holds it, or the disk is full.
    """

    def __init__(self, path: str | Path, owner: str | None = None):
        self.path, self.owner = Path(path), owner

    def __enter__(self) -> Journal:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(held(self.path.with_name(self.path.name + ".lock"), f"journal {self.path}", self.owner))
        try:
            with self._errors():
                self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.store.close()
        self._stack.close()

    def _open(self) -> None:
        try:
            self.store = _connect(self.path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            _salvage(self.path, error)
            self.store = _connect(self.path)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            free = shutil.disk_usage(self.path.parent).free
            raise UserError(
                f"journal {self.path}: {error} ({free / 1e6:,.0f} MB free on that disk). What was committed is kept; "
                "free some space or `make clean-scratch`, then run again"
            ) from error

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of the keys that have completions."""
        found: set[bytes] = set()
        with self._errors():
            for start in range(0, len(keys), _CHUNK):
                chunk = keys[start : start + _CHUNK]
                marks = ",".join("?" * len(chunk))
                found.update(
                    key
                    for (key,) in self.store.execute(
                        f"SELECT key FROM completions WHERE sample = 0 AND key IN ({marks})", chunk
                    )
                )
        return found

    def add(self, records: Iterable[tuple[bytes, Sequence[Completion]]]) -> None:
        """Commits the completions of some requests at once."""
        rows = [
            (key, sample, c.text, c.finish_reason, array("i", c.token_ids).tobytes(), array("d", c.logprobs).tobytes())
            for key, completions in records
            for sample, c in enumerate(completions)
        ]
        with self._errors(), self.store:
            self.store.executemany("INSERT OR IGNORE INTO completions VALUES (?, ?, ?, ?, ?, ?)", rows)

    def read(self, keys: Sequence[bytes]) -> Iterator[tuple[Completion, ...]]:
        """The completions of each key, in the order of the keys."""
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            marks = ",".join("?" * len(set(chunk)))
            found: dict[bytes, list[Completion]] = {}
            with self._errors():
                for key, text, reason, ids, logprobs in self.store.execute(
                    "SELECT key, text, finish_reason, token_ids, logprobs FROM completions "
                    f"WHERE key IN ({marks}) ORDER BY key, sample",
                    list(set(chunk)),
                ):
                    found.setdefault(key, []).append(
                        Completion(text, tuple(_array("i", ids)), reason, tuple(_array("d", logprobs)))
                    )
            for key in chunk:
                yield tuple(found[key])


def run(
    engine: Engine, requests: Sequence[Request], path: str | Path, *, progress: Progress | None = None
) -> Iterator[tuple[Completion, ...]]:
    """Yields each request's completions in the order of the requests; only those that the store at `path` lacks are sampled.

    Equal requests are sampled once. Completions are committed as they finish, in no order; the order of what is
    yielded, and every byte of it, is that of an uninterrupted run.

    Raises:
        UserError: another process holds the store, the disk is full, or the engine left a request unanswered.
    """
    progress = progress or Progress()
    keys = [key_of(engine.fingerprint, engine.encode(request.prompt), request) for request in requests]
    with Journal(path, progress.label) as journal:
        known = journal.known(keys)
        missing = {key: index for index, key in reversed(list(enumerate(keys))) if key not in known}
        todo = sorted(missing.values())
        wanted = sum(request.sampling.n for request in requests)
        progress.start(wanted, wanted - sum(requests[index].sampling.n for index in todo))
        try:
            _sample(engine, [requests[i] for i in todo], [keys[i] for i in todo], journal, progress)
        finally:
            progress.finish()
        yield from journal.read(keys)


def _sample(
    engine: Engine, requests: Sequence[Request], keys: Sequence[bytes], journal: Journal, progress: Progress
) -> None:
    waiting: list[tuple[bytes, tuple[Completion, ...]]] = []
    answered, committed = 0, time.monotonic()
    try:
        for index, completions in engine.generate(requests) if requests else ():
            if len(completions) != requests[index].sampling.n:
                raise UserError(f"{engine.fingerprint}: {len(completions)} completions, {requests[index].sampling.n} asked")
            answered += 1
            waiting.append((keys[index], completions))
            progress.advance(len(completions), sum(len(c.token_ids) for c in completions))
            if len(waiting) >= COMMIT_RECORDS or time.monotonic() - committed > COMMIT_SECONDS:
                journal.add(waiting)
                waiting, committed = [], time.monotonic()
    finally:  # an interrupt or a failing engine loses nothing that was finished
        if waiting:
            journal.add(waiting)
    if answered != len(requests):
        raise UserError(f"{engine.fingerprint}: answered {answered} of {len(requests)} requests")


def size(folder: str | Path) -> tuple[int, int]:
    """(files, bytes) below a folder of journals."""
    sizes = [file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()]
    return len(sizes), sum(sizes)


def clear(folder: str | Path) -> int:
    """Deletes a folder of journals that no process holds; returns the bytes freed.

    Raises:
        UserError: a process holds one of them.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as stack:
        for lock in sorted(folder.rglob("*.lock")):
            stack.enter_context(held(lock, f"journal {lock.with_suffix('')}", "clean-scratch"))
        freed = size(folder)[1]
        shutil.rmtree(folder, ignore_errors=True)
    return freed


def _connect(path: Path) -> sqlite3.Connection:
    store = sqlite3.connect(path, isolation_level="DEFERRED")
    try:
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("PRAGMA synchronous = NORMAL")
        store.execute(_TABLE)
        store.execute("SELECT count(*) FROM (SELECT 1 FROM completions LIMIT 1)").fetchone()
    except BaseException:
        store.close()
        raise
    return store


def _salvage(path: Path, error: sqlite3.DatabaseError) -> None:
    raise NotImplementedError


def _array(kind: str, data: bytes) -> array:
    values = array(kind)
    values.frombytes(data)
    return values
