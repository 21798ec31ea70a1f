"""Bodies of quarantine, undecodable, advisory, checkpoint and format."""

import base64
import json
from datetime import UTC, datetime

import msgspec
import pytest

from consumer.errors import DecodeError
from consumer.model import (
    Identity,
    InputPosition,
    LastUpdate,
    LogPoint,
    Malformed,
    Notice,
    Record,
    Rejected,
    Report,
    Step,
)
from consumer.wire import entries, job_key

HERE = InputPosition(1795503263448525091, 12)
KNOWN = LastUpdate(number=5, sequence=2, state="Completed", version=1, revision=3, source="reported", message="secret")
TIME = datetime(2026, 11, 24, 5, 0, tzinfo=UTC)


def test_a_rejected_report_is_kept_whole() -> None:
    """State, message, job, time and place: all that it takes to explain it and to put it back."""
    report = Report(
        key=job_key("default", "j"),
        job=Identity(id="j", namespace="default", name="n", type="batch"),
        position=HERE,
        state="Running",
        message="again",
        version=1,
        time=TIME,
        traceparent="00-x",
    )
    rejected = Rejected(reason="after-terminal", rule="Completed is final")
    data = entries.encode_quarantine(report, rejected, KNOWN)
    assert json.loads(data) == {
        "Reason": "after-terminal",
        "Rule": "Completed is final",
        "Event": {
            "Kind": "report",
            "StateType": "Running",
            "Message": "again",
            "Job": {"ID": "j", "Namespace": "default", "Name": "n", "Type": "batch", "Version": 1},
            "Time": "2026-11-24T05:00:00Z",
            "Input": {"Sequence": 12, "Time": 1795503263448525091},
        },
        "Known": {
            "Sequence": 2,
            "StateType": "Completed",
            "Version": 1,
            "Revision": 3,
            "Source": "reported",
            "Input": None,
        },
    }
    assert isinstance(entries.decode_quarantine(data).Event, entries.RefusedReport)


def test_a_rejected_record_is_kept_without_its_messages() -> None:
    """Of a record the steps are kept, not what they said."""
    record = Record(
        key=job_key("default", "j"),
        job=Identity(id="j", namespace="default"),
        after=LogPoint(2, 1, 3, "Completed"),
        steps=(Step(version=1, revision=4, state="Running", message="canary-7f3a", time=TIME),),
    )
    data = entries.encode_quarantine(record, Rejected(reason="after-terminal", rule="r"), None)
    assert b"canary" not in data
    body = entries.decode_quarantine(data)
    assert isinstance(body.Event, entries.RefusedRecord)
    assert body.Event.Steps == (entries.RefusedStep(StateType="Running", Version=1, Revision=4, Time=TIME),)
    assert body.Event.After == entries.PlaceBody(Sequence=2, StateType="Completed", Version=1, Revision=3)
    assert body.Known is None


def test_junk_of_a_report_comes_with_its_bytes() -> None:
    """Data is base64; a subject that is not UTF-8 is spelled, not a crash."""
    junk = Malformed(
        reason="not-json",
        origin="12-1",
        source="report",
        subject="jobstate.v1.main.in.d.\udcff",
        size=2,
        sha256="ab",
        detail="odd \udc80",
        data=b"\xff\x00",
        position=HERE,
    )
    body = entries.decode_undecodable(entries.encode_undecodable(junk))
    assert body.Data is not None
    assert base64.b64decode(body.Data) == b"\xff\x00"
    assert (body.Subject, body.Detail) == ("jobstate.v1.main.in.d.\\udcff", "odd \\udc80")
    assert body.Input == entries.InputPlace(Sequence=12, Time=1795503263448525091)


@pytest.mark.parametrize("room", range(8))
def test_of_junk_that_is_too_large_the_first_bytes_are_kept(room: int) -> None:
    """As many as the body holds; its size and digest are those of all."""
    data = bytes(range(256)) * 4
    junk = Malformed(
        reason="not-json", origin="o", source="report", subject="s", size=1_024, sha256="ab", detail="d", data=data
    )
    most = len(entries.encode_undecodable(junk)) - 700 + room
    body = entries.encode_undecodable(junk, most)
    assert most - 4 < len(body) <= most
    found = entries.decode_undecodable(body)
    assert found.Data is not None
    assert data.startswith(base64.b64decode(found.Data))
    assert (found.Size, found.SHA256) == (1_024, "ab")
    tiny = entries.decode_undecodable(entries.encode_undecodable(junk, 10))
    assert tiny.Data == ""


def test_what_a_stranger_names_is_bounded() -> None:
    """A subject, a detail, a fact: shortened, and it shows."""
    junk = Malformed(
        reason="foreign", origin="o", source="frame", subject="s" * 100_000, size=1, sha256="", detail="d" * 9_999
    )
    body = entries.decode_undecodable(entries.encode_undecodable(junk))
    assert (len(body.Subject), len(body.Detail)) == (entries.SUBJECT_MAX, entries.FACT_MAX)
    assert body.Subject[-1] == body.Detail[-1] == "…"
    notice = Notice(kind="undecided", origin="1", text="t", facts={"job": "j" * 100_000})
    assert entries.decode_advisory(entries.encode_advisory(notice)).Facts["job"] == "j" * 1_023 + "…"


def test_a_short_record_is_kept_whole() -> None:
    """Also the steps before the one that was refused."""
    steps = tuple(Step(version=1, revision=number, state="Running") for number in range(1, entries.STEPS_MAX + 1))
    record = Record(
        key=job_key("default", "j"), job=Identity(id="j", namespace="default"), after=LogPoint(0, 0, 0, ""), steps=steps
    )
    rejected = Rejected(reason="illegal-transition", rule="r", step=2)
    event = entries.decode_quarantine(entries.encode_quarantine(record, rejected, None)).Event
    assert isinstance(event, entries.RefusedRecord)
    assert len(event.Steps) == entries.STEPS_MAX
    assert event.Left is msgspec.UNSET


def test_of_a_long_record_the_rejected_step_and_those_after_it_are_kept() -> None:
    """A history may have any length; how many steps are left out is said."""
    steps = tuple(Step(version=1, revision=number, state="Running") for number in range(1, 1_001))
    record = Record(
        key=job_key("default", "j"), job=Identity(id="j", namespace="default"), after=LogPoint(0, 0, 0, ""), steps=steps
    )
    known = LastUpdate(number=5, sequence=500, state="Running", version=1, revision=500, source="observed", message="")
    rejected = Rejected(reason="illegal-transition", rule="r", step=500)
    event = entries.decode_quarantine(entries.encode_quarantine(record, rejected, known)).Event
    assert isinstance(event, entries.RefusedRecord)
    assert [step.Revision for step in event.Steps] == list(range(501, 501 + entries.STEPS_MAX))
    assert event.Left == 1_000 - entries.STEPS_MAX


def test_junk_of_a_frame_never_has_data() -> None:
    """Even if someone filled it in: a frame's bytes do not reach a stream."""
    junk = Malformed(reason="bad-crc", origin="o", source="frame", subject="s", size=6, sha256="ab", data=b"canary")
    data = entries.encode_undecodable(junk)
    assert b"canary" not in data
    assert base64.b64encode(b"canary") not in data
    assert entries.decode_undecodable(data).Data is None


def test_an_advisory_names_the_job_if_there_is_one() -> None:
    """Names are unescaped; where the key has only a digest, the digest stands; odd text does not crash it."""
    notice = Notice(
        kind="foreign", origin="7", text="entry \udcff", key=job_key("a.b", "j 1"), facts={"n": 7, "x": "\udc80"}
    )
    body = entries.decode_advisory(entries.encode_advisory(notice))
    assert body.Job == entries.JobName(ID="j 1", Namespace="a.b")
    assert (body.Kind, body.Text, body.Facts) == ("foreign", "entry \\udcff", {"n": 7, "x": "\\udc80"})
    assert entries.decode_advisory(entries.encode_advisory(Notice(kind="gap", origin="1", text="t"))).Job is None
    digest = entries.encode_advisory(Notice(kind="gap", origin="1", text="t", key=job_key("d", "x" * 200)))
    job = entries.decode_advisory(digest).Job
    assert job is not None
    assert job.ID.startswith("=sha256=")


def test_a_checkpoint_comes_back_as_it_was() -> None:
    """`{"Input":{"Sequence":…,"Time":…}}`, time in nanoseconds."""
    data = entries.encode_checkpoint(HERE)
    assert data == b'{"Input":{"Sequence":12,"Time":1795503263448525091}}'
    assert entries.decode_checkpoint(data) == HERE


@pytest.mark.parametrize(("sequence", "time"), [(0, 7), (-5, 7), (7, 0), (2**63, 7), (7, 2**63), (2**70, 2**70)])
def test_a_checkpoint_at_no_place_of_an_input_is_none(sequence: int, time: int) -> None:
    """The server would refuse to read from there, at every start."""
    with pytest.raises(DecodeError):
        entries.decode_checkpoint(b'{"Input":{"Sequence":%d,"Time":%d}}' % (sequence, time))
    assert entries.decode_checkpoint(entries.encode_checkpoint(InputPosition(2**63 - 1, 1))) == InputPosition(
        2**63 - 1, 1
    )


@pytest.mark.parametrize("since", [-1, -(2**62), 2**63, 2**80])
def test_a_beginning_that_is_no_time_is_none(since: int) -> None:
    """Nanoseconds of an int64, from 1970 on."""
    with pytest.raises(DecodeError):
        entries.decode_format(b'{"Format":1,"Rules":{"Name":"n","Hash":"h"},"Since":%d,"Cluster":"c"}' % since)


@pytest.mark.parametrize("since", [0, 1, 2**63 - 1])
def test_a_beginning_is_a_time(since: int) -> None:
    """Of the orchestrator's clock; 0: the log has all."""
    data = b'{"Format":1,"Rules":{"Name":"n","Hash":"h"},"Since":%d,"Cluster":"c"}' % since
    assert entries.decode_format(data).Since == since


def test_the_format_comes_back_as_it_was() -> None:
    """The log says by which format and rules it was made, of which cluster, since when."""
    body = entries.Format(Rules=entries.RulesStamp(Name="bacalhau", Hash="ab"), Since=None, Cluster="main")
    data = entries.encode_format(body)
    assert data == b'{"Format":1,"Rules":{"Name":"bacalhau","Hash":"ab"},"Since":null,"Cluster":"main"}'
    assert entries.decode_format(data) == body


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"Input":{"Sequence":"1","Time":1}}'])
def test_other_bytes_are_a_decode_error(data: bytes) -> None:
    """Whoever wrote it: the only error is DecodeError."""
    for decode in (
        entries.decode_checkpoint,
        entries.decode_format,
        entries.decode_advisory,
        entries.decode_undecodable,
        entries.decode_quarantine,
    ):
        with pytest.raises(DecodeError):
            decode(data)


def test_an_unknown_kind_is_not_quoted() -> None:
    """The decoder's own sentence would repeat the tag: ours does not."""
    data = b'{"Reason":"r","Rule":"r","Event":{"Kind":"canary - at 7f3a"},"Known":null}'
    with pytest.raises(DecodeError) as caught:
        entries.decode_quarantine(data)
    assert caught.value.reason == "wrong-shape"
    assert "canary" not in str(caught.value)
