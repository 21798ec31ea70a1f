"""Reports: subject and body, agreement about the job, bounds."""

import json
from datetime import UTC, datetime

import pytest

from consumer.errors import DecodeError
from consumer.model import UNDECODABLE_REASONS, InputPosition, Report
from consumer.wire import MESSAGE_MAX, Names, decode_report, escape, job_key, malformed_report
from consumer.wire.decoding import NAME_MAX
from consumer.wire.report import JUNK_MAX

NAMES = Names("main")
HERE = InputPosition(1795503263448525091, 12)
SUBJECT = NAMES.report(job_key("default", "j-1"))
RUNNING = b'{"StateType":"Running"}'
LONG = "x" * 200


def read(data: bytes, subject: str = SUBJECT) -> Report:
    """The report."""
    return decode_report(NAMES, subject, data, HERE, "00-trace")


def refuse(data: bytes, subject: str = SUBJECT) -> str:
    """The reason why there is none."""
    with pytest.raises(DecodeError) as caught:
        read(data, subject)
    assert caught.value.reason in UNDECODABLE_REASONS
    return caught.value.reason


def told(**job: object) -> bytes:
    """A report that says whose it is."""
    return json.dumps({"StateType": "Running", "Job": job}).encode()


def test_a_bare_state_is_a_report() -> None:
    """`{"StateType":…}` suffices: the subject says whose it is, the delivery where it stands."""
    report = read(b'{"StateType":"Running","Message":"on my way"}')
    assert (report.key, report.job.namespace, report.job.id) == ("default.j-1", "default", "j-1")
    assert (report.state, report.message, report.position, report.traceparent) == (
        "Running",
        "on my way",
        HERE,
        "00-trace",
    )
    assert (report.version, report.revision, report.time, report.problem) == (None, None, None, "")


def test_a_report_may_say_all_that_an_update_does() -> None:
    """Job and Time are taken, what is not known is passed over: an update can be sent as a report."""
    body = {
        "StateType": "Running",
        "Message": "",
        "Job": {"ID": "j-1", "Namespace": "default", "Name": "n", "Type": "batch", "Version": 1, "Revision": 2},
        "Previous": "Pending",
        "Sequence": 2,
        "Time": "2026-11-24T10:30:00.123456789+05:30",
        "Source": "observed",
        "Flags": [],
        "Details": {"k": "v"},
    }
    report = read(json.dumps(body).encode())
    assert (report.version, report.revision, report.problem) == (1, 2, "")
    assert (report.job.name, report.job.type) == ("n", "batch")
    assert report.time == datetime(2026, 11, 24, 5, 0, 0, 123457, UTC)
    assert report.time.tzinfo is UTC


@pytest.mark.parametrize("state", ["running", " Running ", "JobStateTypeStopped", "Undefined", "", "Bogus", "\u202e"])
def test_any_text_is_taken_for_a_state(state: str) -> None:
    """Which states there are is the rules' business: the text comes through as it is."""
    assert read(json.dumps({"StateType": state}).encode()).state == state


@pytest.mark.parametrize("name", ["a.b", "*", ">", "a b", "a/b", "a\0b", "a\nb", "=", "=41", "J-1", "\u00fc", "\u202e"])
def test_any_name_comes_through_the_subject(name: str) -> None:
    """Namespace and job are unescaped from the subject; the body may name them too."""
    subject = NAMES.report(job_key(name, name))
    for body in (RUNNING, told(ID=name, Namespace=name)):
        report = read(body, subject)
        assert (report.job.namespace, report.job.id, report.problem) == (name, name, "")
        assert report.key == job_key(name, name)


def test_the_empty_namespace_is_one_and_the_empty_job_is_none() -> None:
    """A job has an id; a namespace may be empty."""
    assert read(RUNNING, NAMES.report(job_key("", "j"))).job.namespace == ""
    assert refuse(RUNNING, NAMES.report(job_key("default", ""))) == "no-job"


@pytest.mark.parametrize(
    "body",
    [
        told(ID="j-2"),
        told(ID=""),
        told(ID="J-1"),
        told(Namespace="other"),
        told(Namespace="Default"),
        told(ID="j-1", Namespace=""),
        told(ID="default.j-1"),
    ],
)
def test_a_body_that_names_another_job_is_a_problem(body: bytes) -> None:
    """The report is decoded under the subject's job, with a problem that makes it a rejection."""
    report = read(body)
    assert "different" in report.problem
    assert (report.key, report.job.id, report.job.namespace) == ("default.j-1", "j-1", "default")


def test_where_the_subject_has_a_digest_the_body_owes_the_text() -> None:
    """A long name stands in the subject as a digest: the body must have it in full, and it must be that one."""
    subject = NAMES.report(job_key("default", LONG))
    assert "=sha256=" in subject
    assert (read(told(ID=LONG), subject).job.id, read(told(ID=LONG), subject).problem) == (LONG, "")
    assert "does not name it" in read(RUNNING, subject).problem
    assert "does not name it" in read(told(Namespace="default"), subject).problem
    assert "digest" in read(told(ID=LONG + "y"), subject).problem
    assert read(told(ID="other"), subject).job.id == escape(LONG)
    both = NAMES.report(job_key(LONG, LONG))
    assert read(told(ID=LONG, Namespace=LONG), both).problem == ""
    assert read(told(ID=LONG), both).problem != ""


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "jobstate.v1.main.in",
        "jobstate.v1.main.in.",
        "jobstate.v1.main.in.default",
        "jobstate.v1.main.in.default.",
        "jobstate.v1.main.in..j",
        "jobstate.v1.main.in.default.j.x",
        "jobstate.v1.other.in.default.j",
        "jobstate.v1.main.state.default.j",
        "xjobstate.v1.main.in.default.j",
        "jobstate.v1.main.in.default.j\n",
        "jobstate.v1.main.in.default.j=4a",
        "jobstate.v1.main.in.default.=41",
        "jobstate.v1.main.in.default.j=",
        "jobstate.v1.main.in.default.=FF",
        "jobstate.v1.main.in.default.=ED=A0=80",
        "jobstate.v1.main.in.default.=sha256=12",
        "jobstate.v1.main.in.default.j\u00f6b",
        "jobstate.v1.main.in.default.j\udcff",
        "jobstate.v1.main.in.default." + LONG,
    ],
)
def test_a_subject_that_no_job_makes_is_foreign(subject: str) -> None:
    """A token that `escape` never makes names no job, and is not guessed at."""
    assert refuse(RUNNING, subject) == "foreign"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b" ", "not-json"),
        (b"{", "not-json"),
        (b"\xef\xbb\xbf" + RUNNING, "not-json"),
        (RUNNING.decode().encode("utf-16"), "not-json"),
        (RUNNING + b"\0", "not-json"),
        (RUNNING + RUNNING, "not-json"),
        (b'{"StateType":"Running",}', "not-json"),
        (b'{"StateType":"Run\x1bning"}', "not-json"),
        (b'{"StateType":"\\ud800"}', "not-json"),
        (b'{"StateType":"\xed\xa0\x80"}', "not-utf8"),
        (b'{"StateType":"Running","Message":"\xff"}', "not-utf8"),
        (b"null", "wrong-shape"),
        (b"[]", "wrong-shape"),
        (b'"Running"', "wrong-shape"),
        (b"{}", "wrong-shape"),
        (b'{"statetype":"Running"}', "wrong-shape"),
        (b'{"StateType":3}', "wrong-shape"),
        (b'{"StateType":null}', "wrong-shape"),
        (b'{"StateType":"Running","Message":null}', "wrong-shape"),
        (b'{"StateType":"Running","Job":"j-1"}', "wrong-shape"),
        (told(ID=1), "wrong-shape"),
        (told(Version=2**64), "wrong-shape"),
        (told(Revision=-1), "wrong-shape"),
        (told(Version="1"), "wrong-shape"),
        (told(Version=1.5), "wrong-shape"),
        (told(Version=True), "wrong-shape"),
        (b'{"StateType":"Running","Job":{"Version":' + b"9" * 4300 + b"}}", "wrong-shape"),
        (b'{"StateType":"Running","Job":{"Version":' + b"9" * 5001 + b"}}", "wrong-shape"),
        (b'{"StateType":"Running","Job":{"Version":1e400}}', "wrong-shape"),
        (b'{"StateType":"Running","Job":{"Version":NaN}}', "not-json"),
        (b'{"StateType":"Running","x":' + b"[" * 500_000 + b"]" * 500_000 + b"}", "too-deep"),
        (b'{"StateType":"Running","Time":' + b"[" * 500_000 + b"]" * 500_000 + b"}", "too-deep"),
        (b'{"StateType":"Running","Message":"' + b"x" * MESSAGE_MAX + b'"}', "too-large"),
    ],
)
def test_a_body_that_cannot_be_read(body: bytes, reason: str) -> None:
    """Each class of bytes, UTF-8, numbers, structure, depth and size has its reason, whatever way the subject goes."""
    assert refuse(body) == reason
    assert refuse(body, NAMES.report(job_key("a.b", "j 1"))) == reason


def test_the_highest_numbers_are_read() -> None:
    """2**64-1 is a uint64; whether it is sensible is for the fold to say."""
    report = read(told(Version=2**64 - 1, Revision=0))
    assert (report.version, report.revision) == (2**64 - 1, 0)


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-24T05:00:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+05:00",
        "10000-01-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00+25:00",
        "9999-12-31T23:59:59.999999999Z",
        "9999-12-31T23:59:59-05:00",
        "",
        "now",
        5,
        None,
        [],
        {},
        True,
    ],
)
def test_an_odd_time_is_none(time: object) -> None:
    """A time that cannot be read, has no zone or leaves the calendar is None, and the report stands."""
    report = read(json.dumps({"StateType": "Running", "Time": time}).encode())
    assert (report.state, report.time) == ("Running", None)


def test_the_size_is_bounded() -> None:
    """A report at the bound is read, one byte more is not; the bound can be set."""
    body = b'{"StateType":"Running","Message":"' + b"x" * (MESSAGE_MAX - 36) + b'"}'
    assert len(body) == MESSAGE_MAX
    assert len(read(body).message) == MESSAGE_MAX - 36
    with pytest.raises(DecodeError) as caught:
        decode_report(NAMES, SUBJECT, RUNNING, HERE, max_bytes=len(RUNNING) - 1)
    assert caught.value.reason == "too-large"


@pytest.mark.parametrize("field", ["Name", "Type"])
def test_names_are_bounded(field: str) -> None:
    """They stand in every later update of the job, which has to fit into a message."""
    assert getattr(read(told(**{field: "x" * NAME_MAX})).job, field.lower()) == "x" * NAME_MAX
    assert refuse(told(**{field: "x" * (NAME_MAX + 1)})) == "wrong-shape"


def test_junk_of_a_report_keeps_its_bytes() -> None:
    """A producer's own bytes are kept, the first 64 KiB; the origin is the place in the input."""
    data = b"\xff" * (JUNK_MAX + 1)
    junk = malformed_report(SUBJECT, data, HERE, DecodeError("not-json", "x"))
    assert (junk.reason, junk.source, junk.size, junk.position) == ("not-json", "report", JUNK_MAX + 1, HERE)
    assert junk.origin == "12-1795503263448525091"
    assert junk.data == data[:JUNK_MAX]


def test_another_job_is_a_problem_of_an_escaped_subject_too() -> None:
    """Where the subject spells the name with escapes it is compared all the same."""
    subject = NAMES.report(job_key("team.a", "j 1"))
    assert read(told(ID="j 1", Namespace="team.a"), subject).problem == ""
    assert "different" in read(told(ID="j-1", Namespace="team.a"), subject).problem
    assert "different" in read(told(ID="j 1", Namespace="team"), subject).problem
