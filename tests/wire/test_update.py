"""Updates: bytes there and back, and whether a subject is an update's own."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from consumer.errors import DecodeError
from consumer.model import Job, JobStateType, State, Update
from consumer.wire import Names, decode_update, encode_update, fits, job_key
from consumer.wire.update import CUT, cut_update

NAMES = Names("main")
UPDATE = Update(
    StateType="Running",
    Message="",
    Job=Job(ID="j-1", Namespace="default", Name="n", Type="batch", Version=1, Revision=2),
    Previous="Pending",
    Sequence=2,
    Time=datetime(2026, 11, 24, 5, 0, 0, 123456, UTC),
    Source="observed",
)


def test_the_body_is_as_documented() -> None:
    """The example of design/design.md 4, byte for byte."""
    assert encode_update(UPDATE) == (
        b'{"StateType":"Running","Message":"","Job":{"ID":"j-1","Namespace":"default","Name":"n","Type":"batch",'
        b'"Version":1,"Revision":2},"Previous":"Pending","Sequence":2,"Time":"2026-11-24T05:00:00.123456Z",'
        b'"Source":"observed","Flags":[]}'
    )


@pytest.mark.parametrize("character", ["x", "\x01", "é", "\N{PILE OF POO}", '"'])
@pytest.mark.parametrize("most", [300, 301, 302, 303, 304, 305, 306, 1_000])
def test_a_message_that_is_too_long_is_cut_to_what_fits(character: str, most: int) -> None:
    """To the last character that the body holds, however many bytes each takes; the flag says so, and nothing else."""
    update = msgspec.structs.replace(UPDATE, Message=character * 1_000, Flags=("skipped",))
    found = cut_update(update, most)
    size = len(encode_update(found))
    assert most - len(msgspec.json.encode(character)) + 2 < size <= most
    assert update.Message.startswith(found.Message)
    assert found.Flags == ("skipped", CUT)
    assert msgspec.structs.replace(found, Message=update.Message, Flags=update.Flags) == update


def test_of_a_message_that_has_no_room_nothing_is_kept() -> None:
    """The rest of the body is what it is."""
    assert cut_update(msgspec.structs.replace(UPDATE, Message="x" * 9), 10).Message == ""


def test_an_update_is_a_state() -> None:
    """Who knows only Bacalhau's `State` decodes an update unchanged."""
    state = msgspec.json.decode(encode_update(UPDATE), type=State[JobStateType])
    assert state.StateType is JobStateType.RUNNING


@pytest.mark.parametrize(
    "update",
    [
        UPDATE,
        msgspec.structs.replace(UPDATE, Time=None, Previous=None, Sequence=1, Flags=("skipped", "joined")),
        msgspec.structs.replace(UPDATE, Job=Job(ID="a.b \u202e\0", Namespace=""), Message="\x1b[31m<b>&\u2028"),
        msgspec.structs.replace(UPDATE, Job=Job(ID="j", Namespace="d", Version=0, Revision=2**64 - 1)),
        msgspec.structs.replace(UPDATE, Sequence=2**64 - 1),
    ],
)
def test_an_update_comes_back_as_it_was(update: Update) -> None:
    """Encoding and decoding are each other's other half; unknown fields of a later release are passed over."""
    assert decode_update(encode_update(update)) == update
    later = json.loads(encode_update(update)) | {"Later": {"x": 1}}
    assert decode_update(json.dumps(later).encode()) == update


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Sequence", 0),
        ("Sequence", -1),
        ("Sequence", 2**64),
        ("Sequence", "2"),
        ("Time", "2026-11-24T05:00:00"),
        ("Time", "yesterday"),
        ("Job", None),
        ("Job", {"ID": "j", "Namespace": "d", "Revision": -1}),
        ("Job", {"ID": "j", "Namespace": "d", "Version": 2**64}),
        ("StateType", None),
        ("Source", 1),
        ("Flags", "x"),
    ],
)
def test_what_none_of_ours_can_be_is_refused(field: str, value: object) -> None:
    """A body in the log that no daemon of ours wrote is `wrong-shape`, so foreign."""
    body = json.loads(encode_update(UPDATE)) | {field: value}
    with pytest.raises(DecodeError) as caught:
        decode_update(json.dumps(body).encode())
    assert caught.value.reason == "wrong-shape"


@pytest.mark.parametrize(("data", "reason"), [(b"", "not-json"), (b"\xff", "not-json"), (b"{}", "wrong-shape")])
def test_bytes_that_are_no_update(data: bytes, reason: str) -> None:
    """Every error is a DecodeError."""
    with pytest.raises(DecodeError) as caught:
        decode_update(data)
    assert caught.value.reason == reason


def test_a_subject_fits_its_update_only() -> None:
    """Another job, namespace, state, cluster or spelling does not fit."""
    key = job_key("default", "j-1")
    assert fits(NAMES, NAMES.state(key, "Running"), UPDATE)
    assert not fits(NAMES, NAMES.state(key, "Failed"), UPDATE)
    assert not fits(NAMES, NAMES.state(job_key("default", "j-2"), "Running"), UPDATE)
    assert not fits(NAMES, NAMES.state(job_key("other", "j-1"), "Running"), UPDATE)
    assert not fits(NAMES, f"jobstate.v1.main.state.{key}.Running", UPDATE)
    assert not fits(Names("other"), NAMES.state(key, "Running"), UPDATE)
    long = msgspec.structs.replace(UPDATE, Job=Job(ID="x" * 500, Namespace="a.b"))
    assert fits(NAMES, NAMES.state(job_key("a.b", "x" * 500), "Running"), long)
