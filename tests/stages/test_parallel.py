"""Stages side by side: as many at once as there are GPUs, and each on its own."""

from __future__ import annotations

import threading

from tools.parallel import Team


def test_as_many_stages_run_at_once_as_there_are_gpus():
    meeting, ran = threading.Barrier(2, timeout=20), []

    class Meeting(Team):
        def repro(self, name: str, gpu: str) -> tuple[int, str]:
            meeting.wait()  # raises unless the other GPU's stage is running, too
            ran.append((name, gpu))
            return 0, ""

    team = Meeting(["a", "b", "c", "d"])
    workers = [threading.Thread(target=team.work, args=(gpu,)) for gpu in "01"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(name for name, _ in ran) == ["a", "b", "c", "d"] and not team.failed
    assert sorted(gpu for _, gpu in ran) == ["0", "0", "1", "1"]
