"""Frames that were heard, and jobs of the log beside their record."""

import asyncio
from collections import Counter
from typing import Final

from consumer.bacalhau.orchestrator import Orchestrator
from consumer.core.appends import Entry
from consumer.core.verify import EntryVerifier
from consumer.doctor.facts import Heard, Listed, LogHead, Pair, Sample, Stream
from consumer.doctor.judging.agreement import BEHIND_S, compare
from consumer.doctor.probing.contact import Listening
from consumer.doctor.probing.jetstream import read_entry
from consumer.doctor.probing.orchestrator import read_history
from consumer.errors import DecodeError, OrchestratorError
from consumer.jetstream.recovery import last_entry
from consumer.model import REPORTED, FrameKind, JobKey, Profile, Snapshot, UndecodableReason, Update
from consumer.nats.connection import Connection
from consumer.ports import RawFrame
from consumer.wire.decoding import time_of
from consumer.wire.frames import decode_frame
from consumer.wire.subjects import Names, job_key

JOBS_MAX: Final = 10
"""Jobs that are compared, and jobs that are looked up."""
NEAR_END: Final = 30
"""Entries before the log's last one among which a part of the sample is; the rest is spread evenly over the log."""
UPDATES_MAX: Final = 200
"""Updates of one job that are read: one with more is left out of the sample."""
AGAIN_S: Final = 1.5
"""A job that differs is read a second time so much later: an early Running, or a read that met a write, is no fault."""


async def hear(listening: Listening, listen_s: float, message_max: int) -> Heard:
    """Return the frames that came since it listens, once that is *listen_s* long."""
    loop, tap = asyncio.get_running_loop(), listening.tap
    await asyncio.sleep(max(0.0, listening.began_at + listen_s - loop.time()))
    frames = await tap.batch() if tap.taken else []
    return read_frames(frames, loop.time() - listening.began_at, message_max, tap.gaps)


def read_frames(frames: list[RawFrame], seconds: float, message_max: int, gaps: int) -> Heard:
    """Sum up *frames*: kinds, profiles, jobs, and how many could not be read. Nothing that a job carries."""
    kinds, profiles, unread = Counter[FrameKind](), Counter[Profile](), Counter[UndecodableReason]()
    jobs: dict[str, str] = {}
    for raw in frames:
        try:
            frame = decode_frame(raw.subject, raw.data, max_bytes=message_max)
        except DecodeError as error:
            unread[error.reason] += 1
            continue
        if frame is None:
            continue
        kinds[frame.kind] += 1
        profiles[frame.profile] += 1
        if frame.job and (frame.job in jobs or len(jobs) < JOBS_MAX):
            namespace = frame.snapshot.job.namespace if frame.snapshot is not None else ""
            jobs[frame.job] = jobs.get(frame.job) or namespace
    return Heard(
        seconds=seconds,
        frames=len(frames),
        kinds=dict(kinds),
        profiles=dict(profiles),
        unread=dict(unread),
        jobs=tuple(jobs.items()),
        gaps=gaps,
    )


async def sample(
    connection: Connection,
    orchestrator: Orchestrator,
    names: Names,
    *,
    log: Stream,
    head: LogHead | None,
    listed: Listed,
    now_s: float,
) -> Sample:
    """Jobs of the log beside their record. *now_s*: the orchestrator's clock. Raises ServerError of our NATS."""
    pairs: list[Pair] = []
    reported = 0
    trouble = None
    for key in await _choose(connection, names, log):
        try:
            pair = await _pair(connection, names, key, orchestrator)
            if pair is not None and (pair.entries is None or compare(pair).contradiction):
                await asyncio.sleep(AGAIN_S)
                pair = await _pair(connection, names, key, orchestrator)
        except OrchestratorError as error:
            trouble = error.kind
            break
        if pair is None:
            reported += 1
        else:
            pairs.append(pair)
    lacking = [
        job.job.id for job in listed.jobs if is_due(job, head, now_s) and await _is_absent(connection, names, job)
    ]
    return Sample(pairs=tuple(pairs), lacking=tuple(lacking), reported=reported, trouble=trouble)


async def _choose(connection: Connection, names: Names, log: Stream) -> list[JobKey]:
    """Keys of jobs: those that changed last, and some from all over the log."""
    states = f"{names.state_prefix}>"
    newest: list[JobKey] = []
    number = max(log.first_seq, log.last_seq - NEAR_END)
    while entry := await read_entry(connection, names.log, number, states):
        number = entry.number + 1
        key = names.key_of_state(entry.subject)
        if key is not None:
            newest = [key, *(one for one in newest if one != key)]
    chosen = newest[: JOBS_MAX // 2]
    for part in range(JOBS_MAX):
        at = log.first_seq + (log.last_seq - log.first_seq) * part // JOBS_MAX
        entry = await read_entry(connection, names.log, at, states)
        key = None if entry is None else names.key_of_state(entry.subject)
        if key is not None and key not in chosen and len(chosen) < JOBS_MAX:
            chosen.append(key)
    return chosen


async def _pair(connection: Connection, names: Names, key: JobKey, orchestrator: Orchestrator) -> Pair | None:
    """The job's true updates and its history; None if only reports tell of it, or there is too much of it."""
    updates = await _updates(connection, names, key)
    if not updates or updates[-1].Source == REPORTED:
        return None
    job = updates[-1].Job
    page = await read_history(orchestrator, job.ID, job.Namespace)
    return Pair(job=job.ID, updates=tuple(updates), entries=None if page is None else page.entries)


async def _updates(connection: Connection, names: Names, key: JobKey) -> list[Update]:
    judge, number = EntryVerifier(names, key), 0
    found: list[Update] = []
    while entry := await read_entry(connection, names.log, number + 1, names.states(key)):
        number = entry.number
        update = judge.take(entry)
        if update is not None:
            found.append(update)
        if len(found) > UPDATES_MAX:
            return []
    return found


def is_due(job: Snapshot, head: LogHead | None, now_s: float) -> bool:
    """Whether the log should have it: it changed after the log began, and long enough ago. *now_s*: Unix seconds.

    The log begins with the newest change of its first list, that one left out. A join reads times to the microsecond
    (`consumer.core`), so what follows within one is left out, too.
    """
    if head is None or head.since_ns is None:
        return False
    changed, began = time_of(job.modified_ns), time_of(head.since_ns)
    return changed is not None and (began is None or began < changed) and job.modified_ns / 1e9 < now_s - BEHIND_S


async def _is_absent(connection: Connection, names: Names, job: Snapshot) -> bool:
    key = job_key(job.job.namespace, job.job.id)
    entry: Entry | None = await last_entry(connection, names, names.states(key))
    return entry is None
