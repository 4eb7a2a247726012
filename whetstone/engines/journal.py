"""Completions that were paid for are kept: an SQLite store from which a rerun takes what it has and samples the rest.

A request is found by everything that decides its completions: the engine's fingerprint (kind, weights, tokenizer,
precision), the prompt, the sampling parameters and the seed. The prompt stands for its token ids, which the
fingerprint's tokenizer makes of it; so an engine on a remote server needs no tokenizer here, and a million keys take
seconds.

SQLite's write-ahead log makes a commit all or nothing, whenever the process is killed. What is lost is what wasn't
committed: at most COMMIT_RECORDS requests or COMMIT_SECONDS of sampling, and the rows in flight.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import sqlite3
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from whetstone.engines.base import Completion, Engine, Request
from whetstone.engines.progress import Progress
from whetstone.errors import UserError
from whetstone.locks import held

log = logging.getLogger(__name__)
COMMIT_SECONDS = 0.1  # a commit costs some 50 microseconds; a kill then loses no finished batch but the last
COMMIT_RECORDS = 64
_CHUNK = 500  # keys per query, below every SQLite's limit on bound values
_TABLE = """CREATE TABLE IF NOT EXISTS completions (
    key BLOB NOT NULL, sample INTEGER NOT NULL, samples INTEGER NOT NULL, text TEXT NOT NULL,
    finish_reason TEXT NOT NULL, token_ids BLOB NOT NULL, logprobs BLOB NOT NULL, PRIMARY KEY (key, sample))"""
_INSERT = "INSERT OR IGNORE INTO completions VALUES (?, ?, ?, ?, ?, ?, ?)"


def key_of(fingerprint: str, request: Request) -> bytes:
    """16 bytes that name a request to an engine."""
    s = request.sampling
    settings = (fingerprint, s.max_tokens, float(s.temperature), float(s.top_p), s.n, tuple(s.stop), request.seed)
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    digest.update(b"\0" + request.prompt.encode(errors="surrogatepass"))
    return digest.digest()


class Journal:
    """The store at `path`, held by this process from `with` to its end.

    Raises:
        UserError: another process holds it, or the disk is full.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> Journal:
        self._stack = contextlib.ExitStack()
        lock = self.path.with_name(self.path.name + ".lock")
        self._stack.enter_context(held(lock, f"journal {self.path}"))
        try:
            with self._errors():
                self.store = _open(self.path)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.store.close()
        self._stack.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            free = shutil.disk_usage(self.path.parent).free
            raise UserError(
                f"journal {self.path}: {error} ({free / 1e6:,.0f} MB free on that disk). What was committed is kept; "
                "make room (`make clean-scratch` deletes journals), then run again"
            ) from error
        except sqlite3.DatabaseError as error:
            self.store.close()
            _move_aside(self.path)
            raise UserError(f"journal {self.path} is damaged ({error}); run again: what can be read stays") from error

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of the keys that have completions."""
        found: set[bytes] = set()
        keys = sorted(set(keys))  # in the order of the index, so that each of its pages is read once
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
        rows = []
        for key, completions in records:
            for sample, c in enumerate(completions):
                ids, logprobs = array("i", c.token_ids).tobytes(), array("d", c.logprobs).tobytes()
                rows.append((key, sample, len(completions), c.text, c.finish_reason, ids, logprobs))
        with self._errors(), self.store:
            self.store.executemany(_INSERT, rows)

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
    """Yields each request's completions in the order of the requests; samples those that the store at `path` lacks.

    Equal requests are sampled once. Completions are committed as they finish, in no order; what is yielded is, byte
    for byte, what an uninterrupted run yields.

    Raises:
        UserError: another process holds the store, the disk is full, or the engine left a request unanswered.
    """
    progress = progress or Progress()
    fingerprint = engine.fingerprint
    keys = [key_of(fingerprint, request) for request in requests]
    with Journal(path) as journal:
        known = journal.known(keys)
        missing: dict[bytes, int] = {}
        for index, key in enumerate(keys):
            if key not in known:
                missing.setdefault(key, index)
        wanted = sum(request.sampling.n for request in requests)
        progress.start(wanted, wanted - sum(requests[index].sampling.n for index in missing.values()))
        try:
            if missing:
                _sample(engine, [requests[index] for index in missing.values()], list(missing), journal, progress)
        finally:
            progress.finish()
        yield from journal.read(keys)


def _sample(
    engine: Engine, requests: Sequence[Request], keys: Sequence[bytes], journal: Journal, progress: Progress
) -> None:
    waiting: list[tuple[bytes, tuple[Completion, ...]]] = []
    answered, committed = set(), time.monotonic()
    try:
        for index, completions in engine.generate(requests):
            asked = requests[index].sampling.n
            if len(completions) != asked:
                raise UserError(f"{engine.fingerprint}: {len(completions)} completions of a prompt, {asked} asked for")
            answered.add(index)
            waiting.append((keys[index], completions))
            progress.advance(len(completions), sum(len(c.token_ids) for c in completions))
            if len(waiting) >= COMMIT_RECORDS or time.monotonic() - committed > COMMIT_SECONDS:
                journal.add(waiting)
                waiting, committed = [], time.monotonic()
    finally:  # an interrupt or a failing engine loses nothing that was finished
        if waiting:
            journal.add(waiting)
    if len(answered) != len(requests):
        raise UserError(f"{engine.fingerprint}: {len(answered)} of {len(requests)} requests were answered; run again")


def size(folder: str | Path) -> tuple[int, int]:
    """(files, bytes) below a folder of journals."""
    sizes = [file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()]
    return len(sizes), sum(sizes)


def clear(folder: str | Path) -> int:
    """Deletes a folder of journals that no process holds; returns the bytes freed.

    Raises:
        UserError: a process holds one of them.
    """
    folder, freed = Path(folder), size(folder)[1]
    with contextlib.ExitStack() as stack:
        for lock in sorted(folder.rglob("*.lock")):
            stack.enter_context(held(lock, f"journal {lock.with_suffix('')}"))
        shutil.rmtree(folder, ignore_errors=True)
    return freed


def _open(path: Path) -> sqlite3.Connection:
    """Opens or makes the store; of a damaged one, what can still be read goes into a new one."""
    damaged = _damaged(path)
    if not damaged.exists():
        try:
            return _connect(path)
        except sqlite3.OperationalError:  # a full disk, a folder that can't be written: nothing is damaged
            raise
        except sqlite3.DatabaseError:
            _move_aside(path)
    store = _connect(path)
    kept = _salvage(damaged, store)
    log.warning("journal %s was damaged: %s completions could be read and are kept", path, f"{kept:,}")
    for file in _files(damaged):
        file.unlink(missing_ok=True)
    return store


def _connect(path: Path) -> sqlite3.Connection:
    store = sqlite3.connect(path)
    try:
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", _TABLE):
            store.execute(statement)
        store.execute("SELECT max(rowid) FROM completions").fetchone()
    except BaseException:
        store.close()
        raise
    return store


def _damaged(path: Path) -> Path:
    return path.with_name(path.name + ".damaged")


def _files(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]


def _move_aside(path: Path) -> None:
    for old, new in zip(_files(path), _files(_damaged(path)), strict=True):
        if old.exists():
            old.replace(new)


def _salvage(damaged: Path, store: sqlite3.Connection) -> int:
    """Copies what can be read of a damaged store, past its faults; a request keeps all of its samples or none."""
    with contextlib.closing(sqlite3.connect(damaged)) as old:
        rows, end = "SELECT * FROM completions WHERE rowid > ? AND rowid <= ?", damaged.stat().st_size // 32
        with contextlib.suppress(sqlite3.Error):
            end = old.execute("SELECT max(rowid) FROM completions").fetchone()[0] or 0
        for start in range(0, end, _CHUNK):
            with store:
                try:
                    store.executemany(_INSERT, old.execute(rows, (start, start + _CHUNK)).fetchall())
                except sqlite3.Error:
                    for row in range(start, start + _CHUNK):
                        with contextlib.suppress(sqlite3.Error):
                            store.executemany(_INSERT, old.execute(rows, (row, row + 1)).fetchall())
    with store:
        store.execute(
            "DELETE FROM completions WHERE key IN "
            "(SELECT key FROM completions GROUP BY key HAVING count(*) <> max(samples))"
        )
    return store.execute("SELECT count(*) FROM completions").fetchone()[0]


def _array(kind: str, data: bytes) -> array:
    values = array(kind)
    values.frombytes(data)
    return values
