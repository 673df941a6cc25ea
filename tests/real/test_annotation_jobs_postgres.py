"""Jobs of an annotation tool on a real PostgreSQL: several processes take them, each once, and a dead one's again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from monitor.settings import Settings
from monitor.store.annotation_jobs import Job
from monitor.store.store import Store
from tests.embedded import settings_of
from tests.real.postgres import Postgres

CLAIM_AND_HANG = """
import sys, time, msgspec
from monitor.settings import Settings
from monitor.store.store import Store
store = Store.open(msgspec.json.decode(sys.argv[1], type=Settings), write=True)
print(store.annotation_jobs.claim(1_500_000).number, flush=True)
time.sleep(600)
"""


def test_a_job_is_claimed_once_and_outlives_whoever_is_killed_over_it(tmp_path: Path, postgres: Postgres) -> None:
    settings: Settings = settings_of(tmp_path, store={"url": postgres.fresh_database()})
    with Store.open(settings, write=True) as store:
        for number in range(20):
            store.annotation_jobs.add(number)
        command = [sys.executable, "-c", CLAIM_AND_HANG, msgspec.json.encode(settings).decode()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dying:
            assert dying.stdout is not None
            held = int(dying.stdout.readline())
            os.kill(dying.pid, signal.SIGKILL)

        def take(_: int) -> Job | None:
            return store.annotation_jobs.claim(600_000_000)

        with ThreadPoolExecutor(4) as pool:
            jobs = [job for job in pool.map(take, range(40)) if job is not None]
        others = [job.number for job in jobs if job.number != held]
        assert sorted(others) == sorted({*range(20)} - {held})
        taken = {job.number for job in jobs}
        while held not in taken:  # until its lease ends
            job = store.annotation_jobs.claim(600_000_000)
            if job is not None:
                assert job == (held, job.asked_us, 2)
                jobs.append(job)
                taken.add(job.number)
        for job in jobs:
            store.annotation_jobs.done(job)
        assert store.annotation_jobs.rows() == []
