"""What must be true of the log, said by somebody who wrote neither join nor fold: at every entry, and at the end.

Per job one `Book`. A job by record: the log is a prefix of the record's history, equal neighbours merged, and in the
end all of it. A job by report: the sequential fold of the reports, spelled here as plainly as possible. A job by both:
the reports until the record takes over, once, flagged; then the record's steps after the one that it took over with.
Where the promise itself has a limit (design/design.md 1.3: what the input lost after somebody had read it, a job that
was forgotten), a book is *loose*: order, count and rules still hold, and nobody says which of the reports are there.
"""

from typing import Any, Final, NamedTuple

import msgspec

from consumer.core.appends import Entry
from consumer.model import Identity, InputPosition, Malformed, Report
from tests.lab.seeds import ViolationError
from tests.lab.simulation.log import SimulatedLog
from tests.lab.simulation.orchestrator import ENDS, JobRecord

EDGES: Final = {
    "Pending": {"Queued", "Running", "Completed", "Failed", "Stopped"},
    "Queued": {"Running", "Completed", "Failed", "Stopped"},
    "Running": {"Queued", "Completed", "Failed", "Stopped"},
}
STATES: Final = ("Pending", "Queued", "Running", "Completed", "Failed", "Stopped")
SPELLINGS: Final = {state.lower(): state for state in STATES} | {"jobstatetypestopped": "Stopped"}

decode: Final = msgspec.json.Decoder().decode


class Wanted(NamedTuple):
    """An update as it must be, of a report. `position` is the input's."""

    position: InputPosition
    state: str
    message: str
    version: int | None
    revision: int | None
    flags: tuple[str, ...]


class Step(NamedTuple):
    """A step of a record, equal neighbours merged. `number` is that of its history entry."""

    number: int
    version: int
    state: str
    message: str


def merged(job: JobRecord) -> list[Step]:
    """The record's steps."""
    steps: list[Step] = []
    before: tuple[int, str] | None = None
    for number, written in enumerate(job.written, 1):
        entry = written.entry
        if (entry.version, entry.state) != before:
            steps.append(Step(number, entry.version, entry.state, entry.message))
        before = (entry.version, entry.state)
    return steps


class Fold:
    """The sequential fold of one job's reports."""

    def __init__(self) -> None:
        self.accepted: list[Wanted] = []
        self.rejected: dict[str, str] = {}

    def take(self, report: Report) -> None:
        """One more report."""
        reason = self._take(report)
        if reason:
            self.rejected[origin_of(report.position)] = reason

    def _take(self, report: Report) -> str:
        if report.problem:
            return "identity"
        state = SPELLINGS.get(report.state.strip().lower())
        if state is None:
            return "unknown-state"
        service = report.job.type in ("service", "daemon")
        if not self.accepted:
            if service and state == "Completed":
                return "not-completable"
            return self._accept(report, state, report.version, ())
        last = self.accepted[-1]
        if report.version is not None and last.version is not None and report.version != last.version:
            if report.version < last.version:
                return ""
            if service and state == "Completed":
                return "not-completable"
            return self._accept(report, state, report.version, () if state == "Pending" else ("skipped",))
        if report.revision is not None and last.revision is not None:
            if report.revision < last.revision:
                return ""
            if report.revision == last.revision and state != last.state:
                return "conflict"
        version = last.version if report.version is None else report.version
        if state == last.state:
            if report.message == last.message or state in ENDS:
                return ""
            return self._accept(report, state, version, ("message",))
        if last.state in ENDS:
            return "after-terminal"
        if state not in EDGES[last.state]:
            return "illegal-transition"
        if service and state == "Completed":
            return "not-completable"
        return self._accept(report, state, version, ())

    def _accept(self, report: Report, state: str, version: int | None, flags: tuple[str, ...]) -> str:
        self.accepted.append(Wanted(report.position, state, report.message, version, report.revision, flags))
        return ""


def origin_of(position: InputPosition) -> str:
    """How the quarantine names a report."""
    return f"{position.sequence}-{position.time_ns}"


class Book:
    """What is right for one job, and what the log has of it so far."""

    def __init__(self, identity: Identity) -> None:
        self.identity: Final = identity
        self.key: Final = f"{identity.namespace}.{identity.id}"
        self.record: JobRecord | None = None
        self.reports: list[Report] = []
        self.fold = Fold()
        self.loose = False
        self.forgotten = False
        self.forged: int | None = None
        # -- what the log has --
        self.count = 0
        self.state: str | None = None
        self.version: int | None = None
        self.revision: int | None = None
        self.position: InputPosition | None = None
        self.number = 0
        self.by_record = False
        self.behind = 0  # of a record: the number of its last entry that the log has
        self.quarantined: dict[str, str] = {}

    # -- what comes ---------------------------------------------------------------------------------------------------

    def report(self, report: Report) -> None:
        """A producer reports the job."""
        self.reports.append(report)
        self.fold.take(report)

    def lose(self, lost: set[InputPosition]) -> None:
        """The input has lost reports that nobody had read: they never were."""
        self.reports = [report for report in self.reports if report.position not in lost]
        self.fold = Fold()
        for report in self.reports:
            self.fold.take(report)

    def forget(self) -> None:
        """An operator purged the job from the log."""
        self.count = 0
        self.state = self.version = self.revision = self.position = None
        self.by_record = False
        self.behind = 0
        self.forgotten = True
        if self.reports:
            self.loose = True

    @property
    def mixed(self) -> bool:
        """Whether both a record and reports tell of the job."""
        return self.record is not None and bool(self.reports)

    # -- what a daemon of ours stores ---------------------------------------------------------------------------------

    def stored(self, entry: Entry) -> None:
        """A daemon's update was stored: it must be the next one."""
        body = decode(entry.body)
        state = body["StateType"]
        if entry.subject != f"jobstate.v1.main.state.{self.key}.{state.lower()}":
            raise ViolationError(f"the subject {entry.subject} does not fit the body {body}")
        job = body["Job"]
        if (job["ID"], job["Namespace"]) != (self.identity.id, self.identity.namespace):
            raise ViolationError(f"the body names another job: {body}")
        if body["Sequence"] != self.count + 1 or body["Previous"] != self.state:
            raise ViolationError(
                f"after Sequence {self.count} ({self.state}) came "
                f"Sequence {body['Sequence']} (Previous {body['Previous']})"
            )
        flags = tuple(body.get("Flags", ()))
        header = _position(entry.input)
        if body["Source"] == "observed":
            self._stored_step(body, flags)
        elif body["Source"] == "reported":
            self._stored_report(body, flags, header)
        else:
            raise ViolationError(f"source {body['Source']}")
        if self.position is not None and (header is None or header < self.position):
            raise ViolationError(f"the input is covered up to {self.position}, and this update says {header}")
        self.count += 1
        self.state, self.version, self.revision = state, job.get("Version"), job.get("Revision")
        self.position = header
        self.number = entry.number

    def _stored_step(self, body: dict[str, Any], flags: tuple[str, ...]) -> None:
        job = body["Job"]
        says = Step(job.get("Revision"), job.get("Version"), body["StateType"], body["Message"])
        if self.record is None:
            raise ViolationError(f"there is no record that says {says}")
        if (self.count and not self.by_record) or self.forged == self.count:
            if flags != ("corrected",) or body["Previous"] != self.state:
                raise ViolationError(f"the record takes over, so this must be flagged corrected: {body}")
            there = self.record.written[says.number - 1].entry if 0 < says.number <= len(self.record.written) else None
            if there is None or (there.version, there.state, there.message) != says[1:]:
                raise ViolationError(f"the record's entry {says.number} is not {says}")
        else:
            wanted = next((step for step in merged(self.record) if step.number > self.behind), None)
            if wanted != says:
                raise ViolationError(f"after entry {self.behind} of the record comes {wanted}, and the log got {says}")
            new_life = self.count > 0 and self.version != says.version
            if flags != (("skipped",) if new_life and says.state != "Pending" else ()):
                raise ViolationError(f"flags {flags} of {says}")
            if self.count and not new_life and says.state not in EDGES.get(self.state or "", ()):
                raise ViolationError(f"{self.state} to {says.state} is forbidden")
        self.by_record = True
        self.behind = says.number

    def _stored_report(self, body: dict[str, Any], flags: tuple[str, ...], header: InputPosition | None) -> None:
        job = body["Job"]
        says = (body["StateType"], body["Message"], job.get("Version"), job.get("Revision"), flags)
        if self.by_record:
            raise ViolationError(f"the record knows the job, and a report was published: {says}")
        if header is None:
            raise ViolationError(f"a report's update names no entry of the input: {says}")
        if self.loose:
            report = next((one for one in self.reports if one.position == header), None)
            if report is None or SPELLINGS.get(report.state.strip().lower()) != says[0]:
                raise ViolationError(f"no report at {header} says {says}")
            if self.position is not None and header <= self.position:
                raise ViolationError(f"{header} is not above {self.position}")
            same_life = self.state is not None and (job.get("Version") == self.version or self.version is None)
            if same_life and says[0] not in EDGES.get(self.state or "", ()) and not (flags and says[0] == self.state):
                raise ViolationError(f"{self.state} to {says[0]} is forbidden")
            return
        wanted = self.fold.accepted[self.count] if self.count < len(self.fold.accepted) else None
        if wanted is None or wanted != (header, *says):
            raise ViolationError(f"the fold of the reports wants {wanted}, and the log got {(header, *says)}")

    def refused(self, reason: str, origin: str) -> None:
        """A daemon's rejection was stored: it must be one, and the first of its event."""
        if origin in self.quarantined:
            raise ViolationError(f"the rejection of {origin} is kept twice: {self.quarantined[origin]}, {reason}")
        self.quarantined[origin] = reason
        if self.record is not None and self.record.forbidden is not None:
            wrong = self.record.written[self.record.forbidden - 1].entry
            if origin == f"{wrong.version}-{self.record.forbidden}":
                return
        report = next((one for one in self.reports if origin_of(one.position) == origin), None)
        if report is None:
            raise ViolationError(f"nothing at {origin} was to be rejected ({reason})")
        if self.loose or self.record is not None:
            return
        if self.fold.rejected.get(origin) != reason:
            wanted = self.fold.rejected.get(origin, "no rejection")
            raise ViolationError(f"the fold of the reports has {wanted} for {origin}, and {reason} was kept")

    def unchanged(self, report: Report) -> None:
        """A daemon has decided that a report changes nothing: whatever it must come to is in the log already."""
        if self.loose or self.record is not None:
            return
        origin = origin_of(report.position)
        if origin in self.fold.rejected and origin not in self.quarantined:
            raise ViolationError(
                f"{origin} must be rejected ({self.fold.rejected[origin]}), and was decided to be nothing"
            )
        following = self.fold.accepted[self.count : self.count + 1]
        if (
            following
            and following[0].position <= report.position
            and any(wanted.position == report.position for wanted in self.fold.accepted)
        ):
            raise ViolationError(f"{origin} must be published, and was decided to be nothing")

    def forge(self, entry: Entry) -> None:
        """A stranger wrote what nobody can tell from ours: it stands, and what the record says follows, corrected."""
        body = decode(entry.body)
        self.count += 1
        self.state = body["StateType"]
        self.version, self.revision = body["Job"].get("Version"), body["Job"].get("Revision")
        self.number = entry.number
        self.forged = self.count

    # -- in the end ---------------------------------------------------------------------------------------------------

    def missing(self, since_ns: int) -> str:
        """What the log has not yet; empty if nothing is missing."""
        if self.record is not None and self.record.written:
            return self._missing_steps(self.record, since_ns)
        if self.loose:
            return ""
        if self.count < len(self.fold.accepted):
            return f"update {self.count + 1}: {self.fold.accepted[self.count]}"
        absent = [
            f"{origin} ({reason})" for origin, reason in self.fold.rejected.items() if origin not in self.quarantined
        ]
        return f"rejections: {', '.join(absent)}" if absent else ""

    def _missing_steps(self, record: JobRecord, since_ns: int) -> str:
        if not self.count and record.ended and record.modified_ns <= since_ns:
            return ""  # over before the log began
        if self.count and (not self.by_record or self.forged == self.count):
            return "the record has not taken over"
        wanted = next((step for step in merged(record) if step.number > self.behind), None)
        if wanted is None:
            return ""
        if record.forbidden is not None and wanted.number == record.forbidden:
            origin = f"{wanted.version}-{record.forbidden}"
            return "" if origin in self.quarantined else f"the rejection of {origin}"
        return f"step {wanted}"

    def settled(self, upto: InputPosition) -> str:
        """What is not in the log although a checkpoint says that the input is confirmed up to *upto*."""
        if self.loose or self.record is not None:
            return ""
        if self.count < len(self.fold.accepted) and self.fold.accepted[self.count].position <= upto:
            return f"{self.key} update {self.count + 1}"
        for report in self.reports:
            if report.position > upto:
                break
            origin = origin_of(report.position)
            if origin in self.fold.rejected and origin not in self.quarantined:
                return f"{self.key} rejection {origin}"
        return ""


def _position(header: str) -> InputPosition | None:
    if not header:
        return None
    sequence, _, time_ns = header.partition("@")
    return InputPosition(int(time_ns), int(sequence))


class Oracle:
    """All books, and what belongs to no job."""

    def __init__(self) -> None:
        self.books: dict[str, Book] = {}
        self.junk: dict[str, Malformed] = {}
        self.junk_kept: set[str] = set()
        self.junk_lost: set[str] = set()
        self.foreign: set[int] = set()
        self.advisories: set[str] = set()

    def book(self, identity: Identity) -> Book:
        """The job's book."""
        key = f"{identity.namespace}.{identity.id}"
        book = self.books.get(key)
        if book is None:
            book = self.books[key] = Book(identity)
        return book

    def stored(self, entry: Entry) -> None:
        """A daemon's append was stored, in either stream."""
        words = entry.subject.split(".")
        match words[3]:
            case "state":
                book = self.books.get(f"{words[4]}.{words[5]}")
                if book is None:
                    raise ViolationError(f"nobody spoke of this job: {entry.subject}")
                book.stored(entry)
            case "quarantine":
                self.books[f"{words[5]}.{words[6]}"].refused(words[4], words[7])
            case "undecodable":
                if words[5] not in self.junk:
                    raise ViolationError(f"nothing undecodable came from {words[5]}")
                if words[5] in self.junk_kept:
                    raise ViolationError(f"the junk {words[5]} is kept twice")
                self.junk_kept.add(words[5])
            case "advisory":
                self._advised(entry.subject, words)
            case "checkpoint":
                self._checked(_checkpoint(entry.body))
            case other:
                raise ViolationError(f"nobody writes {other}: {entry.subject}")

    def _advised(self, subject: str, words: list[str]) -> None:
        if subject in self.advisories:
            raise ViolationError(f"announced twice: {subject}")
        self.advisories.add(subject)
        if words[4] == "foreign" and int(words[5]) not in self.foreign:
            raise ViolationError(f"entry {words[5]} is one of ours, and was announced as foreign")
        if words[4] == "diverged" and all(book.forged is None for book in self.books.values()):
            raise ViolationError(f"no record differs from the log, and yet: {subject}")

    def _checked(self, upto: InputPosition) -> None:
        for book in self.books.values():
            if found := book.settled(upto):
                raise ViolationError(f"a checkpoint at {upto}, and the log has not: {found}")
        for origin, junk in self.junk.items():
            if junk.position <= upto and origin not in self.junk_kept and origin not in self.junk_lost:
                raise ViolationError(f"a checkpoint at {upto}, and the junk {origin} is not kept")

    def unannounced(self, log: SimulatedLog) -> list[str]:
        """Foreign entries that a start must have seen, and that no advisory names: the last ones of their subjects."""
        prefix = "jobstate.v1.main."
        return [
            f"#{entry.number} {entry.subject}"
            for entry in log.last_per_subject(prefix + "state.", log.version)
            if entry.number in self.foreign and f"{prefix}advisory.foreign.{entry.number}" not in self.advisories
        ]

    def missing(self, since_ns: int, *, lenient: bool) -> list[str]:
        """What the log has not yet. *lenient*: of a job that was forgotten or forged only a start need take notice."""
        found = [
            f"{key}: {what}"
            for key, book in self.books.items()
            if (what := book.missing(since_ns)) and not (lenient and (book.forgotten or book.forged is not None))
        ]
        found.extend(f"junk {origin}" for origin in self.junk if origin not in self.junk_kept | self.junk_lost)
        return found


def _checkpoint(body: bytes) -> InputPosition:
    spelt = decode(body)["Input"]
    return InputPosition(spelt["Time"], spelt["Sequence"])
