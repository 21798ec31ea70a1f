"""Which jobs are meant by what is typed: ids, beginnings of ids, names.

An id in full comes first: it hides whatever else begins so or is called so. Then the beginnings of ids and the names
count alike; where that leaves more than one job, none is guessed.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from consumer.cli.running import tell
from consumer.errors import AbsentError, AmbiguousError

if TYPE_CHECKING:
    from consumer.jetstream.view import View
    from consumer.model import JobKey

ASK_DOCTOR: Final = "is a daemon running? jobstate doctor"
"""Ends the word on a job that does not come: a verb sees the log, and not whether anybody writes it."""
NAMED_MAX: Final = 5
"""At most this many are named in a sentence."""
CANDIDATES_MAX: Final = 20
"""At most this many candidates are listed."""
_BEGINNING: Final = re.compile(r"j-[0-9a-f]{2,8}(?:-[0-9a-f]{0,4}){0,3}(?:-[0-9a-f]{0,12})?\Z")
"""The beginning of an id as Bacalhau makes them. Such a text is no name if it begins an id."""
_SHORT_ID: Final = re.compile(r"j-[0-9a-f]{8}\Z")


async def find_key(view: "View", job: str) -> "JobKey":
    """The key of the job that *job* names: see `find_keys`.

    Raises `AbsentError` for none, `AmbiguousError` for more than one.
    """
    ((named, keys),) = (await find_keys(view, [job])).items()
    return only(view, named, keys)


def only(view: "View", job: str, keys: "Sequence[JobKey]") -> "JobKey":
    """The one of *keys*, which `find_keys` found for *job*. Raises `AbsentError`, `AmbiguousError`."""
    from consumer.wire.display import printable

    if not keys:
        raise AbsentError(
            f"no job {job} in cluster {view.names.cluster}: write the job's id, its beginning, or the job's name "
            "(`jobstate list` shows those there are)"
        )
    if len(keys) > 1:
        more = f"\n  and {len(keys) - CANDIDATES_MAX} more" if len(keys) > CANDIDATES_MAX else ""
        lines = "".join(f"\n  {printable(say_key(key))}" for key in keys[:CANDIDATES_MAX])
        step = "write one of these, or more of the id"
        raise AmbiguousError(f"{job} may be one of {len(keys)} jobs: {step}{lines}{more}")
    return keys[0]


async def find_keys(view: "View", jobs: Iterable[str]) -> "dict[str, list[JobKey]]":
    """For each of *jobs* the keys of all jobs that it may name; none where nobody knows such a job.

    It is an id, the beginning of one, or a name; in any namespace, or after the namespace and a slash. Names are
    looked for among all jobs, in one reading: 0.7 s of this machine's CPU for 100,000 jobs.
    """
    found: dict[str, list[JobKey]] = {}
    names: list[str] = []
    for job in dict.fromkeys(jobs):
        found[job], certain = await _find_ids(view, job)
        if not certain:
            names.append(job)
    for job, keys in (await _find_names(view, names)).items():
        found[job] = sorted({*found[job], *keys})
    return found


async def _find_ids(view: "View", job: str) -> "tuple[list[JobKey], bool]":
    """The jobs whose id *job* is or begins, and whether that is certain: no name is meant."""
    from consumer.wire.subjects import escape

    whole = await view.keys(job=escape(job))
    if whole:
        return sorted(whole), True
    namespace, slash, name = job.rpartition("/")
    if slash and (keys := await view.keys(escape(namespace), escape(name))):
        return keys, True
    within = escape(namespace) if slash else "*"
    beginning = escape(name)
    begun = sorted(key for key in await view.keys(within) if key.partition(".")[2].startswith(beginning))
    return begun, bool(begun and _BEGINNING.match(name))


async def _find_names(view: "View", jobs: Sequence[str]) -> "dict[str, list[JobKey]]":
    """The jobs whose name each of *jobs* is, or is after its namespace and a slash."""
    import msgspec

    from consumer.cli.display import read_entry
    from consumer.wire.subjects import job_key

    if not jobs:
        return {}
    found: dict[str, list[JobKey]] = {}
    wanted: dict[tuple[str | None, str], list[str]] = {}
    for job in jobs:
        wanted.setdefault((None, job), []).append(job)
        for slash in re.finditer("/", job):  # a name may have some of its own
            wanted.setdefault((job[: slash.start()], job[slash.end() :]), []).append(job)
    # An update of ours spells the name like this. To decode each of a million would take minutes.
    spelled = re.compile(b"|".join(re.escape(b'"Name":' + msgspec.json.encode(name)) for _, name in wanted))
    async with view.present() as present:
        async for entry in present:
            if not spelled.search(entry.body) or (update := read_entry(entry)) is None:
                continue
            namespace, name = update.Job.Namespace, update.Job.Name
            key = job_key(namespace, update.Job.ID)
            if view.names.key_of_state(entry.subject) == key:  # else a stranger's
                for job in {*wanted.get((None, name), ()), *wanted.get((namespace, name), ())}:
                    found.setdefault(job, []).append(key)
    return found


async def find_patterns(view: "View", jobs: Sequence[str]) -> "list[JobKey]":
    """As `find_key` of each, but a job that is not known yet is taken at its word: a whole id, in any or its namespace.

    For such a job it returns the pattern of its key, `*.<job>` if no namespace was named. It says so on standard error,
    since silence would look as if the job were there.
    """
    patterns: dict[JobKey, None] = {}
    for job, keys in (await find_keys(view, jobs)).items():
        if keys or _SHORT_ID.match(job.rpartition("/")[2]):
            patterns[only(view, job, keys)] = None
        else:
            patterns[_pattern(job)] = None
            cluster = view.names.cluster
            tell(f"no job {job} is known yet in cluster {cluster}: waiting for one with this id ({ASK_DOCTOR})")
    return list(patterns)


def _pattern(job: str) -> "JobKey":
    from consumer.model import JobKey
    from consumer.wire.subjects import escape, job_key

    namespace, slash, name = job.rpartition("/")
    return job_key(namespace, name) if slash else JobKey(f"*.{escape(name)}")


def enumerate_some(names: Iterable[str]) -> str:
    """The first of *names*, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - NAMED_MAX} more" if len(every) > NAMED_MAX else ""
    return ", ".join(every[:NAMED_MAX]) + more


def say_key(key: "JobKey") -> str:
    """`<namespace>/<job>`, as people write it."""
    from consumer.wire.subjects import unescape

    namespace, _, job = key.partition(".")
    return "/".join(token if (text := unescape(token)) is None else text for token in (namespace, job))
