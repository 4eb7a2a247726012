"""Writes down what a stage really does: Python imports this module at the start of every process whose PYTHONPATH
names its folder. Where AUDIT names a folder too, a stage that DVC started leaves there, at its end, `<stage>.json`:

modules: the project's Python files that it imported
opened: the project's other files that it opened, and the tables that it read
params: the parameters that it looked at, as `section.key`, `epochs.train.<epoch>` or the name of a list
writers: the project's modules that opened or renamed a file of it for writing, manifests apart
changed: the project's files that are new, changed or gone after it, whoever wrote them
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

OPENED: set[str] = set()
PARAMS: set[str] = set()
WRITERS: set[str] = set()
OWN = {".git", ".dvc", ".scratch", "__pycache__"}  # of git, DVC, resumption and Python


def opens(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[0], str) and not by_others():
        OPENED.add(os.path.abspath(arguments[0]))


def writes(event: str, arguments: tuple) -> None:
    """Notes the innermost module of the project on the way to a file that is written."""
    if event == "open":
        path, mode, flags = arguments
        if not (set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)):
            return
    elif event == "os.rename":
        path = arguments[1]
    else:
        return
    root = os.getcwd() + os.sep
    place = os.path.abspath(path).removeprefix(root) if isinstance(path, str | os.PathLike) else os.sep
    if os.path.isabs(place) or place.split(os.sep)[0] in OWN | {"manifests"}:
        return
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename.removeprefix(root)
        if file.startswith(("stages", "whetstone")):
            WRITERS.add(file)
            return
        frame = frame.f_back


def by_others() -> bool:
    """DVC hashes every input of a stage, also those that the stage never looks at; and shutil opens what it deletes,
    by names that are relative to wherever it is."""
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if f"{os.sep}site-packages{os.sep}dvc" in code.co_filename or code.co_name.startswith("_rmtree"):
            return True
        frame = frame.f_back
    return False


def watch_tables(records) -> None:
    read = records.read  # Arrow opens files without Python's knowledge

    def reading(path, schema):
        OPENED.add(os.path.abspath(path))
        return read(path, schema)

    records.read = reading


def watch_parameters(common) -> None:
    section, structure, epoch_of, read_params = common.section, common.structure, common.epoch_of, common.read_params

    class Params(dict):
        def __getitem__(self, name):
            PARAMS.add(name)
            return super().__getitem__(name)

    def recording(schema, prefix):
        def get(self, name):
            if name in schema.model_fields:
                PARAMS.add(prefix + name)
            return super(seen, self).__getattribute__(name)

        seen = type(schema.__name__, (schema,), {"__getattribute__": get})
        return seen

    class Structure:
        def __init__(self, known):
            self.known = known

        def __getattr__(self, name):
            PARAMS.add(name)
            return getattr(self.known, name)

    def quietly(call, *arguments):
        before = set(PARAMS)
        try:
            return call(*arguments)
        finally:
            PARAMS.clear()
            PARAMS.update(before)

    def epoch(name):
        PARAMS.add(f"epochs.train.{name}")
        return quietly(epoch_of, name)

    common.read_params = lambda: Params(quietly(read_params))
    common.section = lambda name, schema: quietly(section, name, recording(schema, f"{name}."))
    common.structure = lambda: Structure(quietly(structure))
    common.epoch_of = epoch


class Finder:
    """Patches a module right after its import."""

    patches = {"whetstone.records": watch_tables, "stages.common": watch_parameters}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in cls.patches:
            return None
        spec = PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def patched(module):
            execute(module)
            cls.patches[name](module)

        spec.loader.exec_module = patched
        return spec


def files() -> dict[str, tuple[int, int]]:
    found = {}
    for folder, names, own in os.walk("."):
        names[:] = [name for name in names if name not in OWN]
        for name in own:
            state = os.lstat(os.path.join(folder, name))
            found[os.path.relpath(os.path.join(folder, name))] = state.st_mtime_ns, state.st_size
    return found


def report(before: dict[str, tuple[int, int]]) -> None:
    root = os.getcwd() + os.sep
    after = files()
    modules = {m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
    content = {
        "modules": [path.removeprefix(root) for path in modules if path.startswith(root)],
        "opened": [path.removeprefix(root) for path in OPENED if path.startswith(root)],
        "params": list(PARAMS),
        "writers": list(WRITERS),
        "changed": [path for path in {*before, *after} if before.get(path) != after.get(path)],
    }
    name = os.environ["DVC_STAGE"].rpartition(":")[2]
    Path(os.environ["AUDIT"], f"{name}.json").write_text(json.dumps({k: sorted(v) for k, v in content.items()}))


if "AUDIT" in os.environ and "DVC_STAGE" in os.environ and sys.orig_argv[1:2] == ["-m"]:
    sys.meta_path.insert(0, Finder)
    sys.addaudithook(opens)
    sys.addaudithook(writes)
    atexit.register(report, files())
