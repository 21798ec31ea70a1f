"""Frames: the samples of design/bacalhau.md 9, every recording, and the rows of design/nats.md 7 that concern them."""

import json
from pathlib import Path

import msgspec
import pytest

from consumer.errors import DecodeError
from consumer.model import NUMBER_MAX, UNDECODABLE_REASONS, Frame, FrameKind
from consumer.wire import MESSAGE_MAX, bprotocol, decode_frame, document, malformed_frame, open_envelope
from consumer.wire import ncl as ncl_profile
from consumer.wire.decoding import ID_MAX, TEXT_MAX
from tests.wire import samples
from tests.wire.samples import IN, JOB, OUT, ask_payload, folders, messages, ncl, seal

CANARY = "canary-7f3a"
ECHO = [{"Message": "Completed successfully", "Topic": "Execution", "Timestamp": "2026-11-24T06:54:23.4Z"}]


def read(subject: str, data: bytes) -> Frame:
    """The frame; there must be one."""
    frame = decode_frame(subject, data)
    assert frame is not None
    return frame


def refuse(subject: str, data: bytes) -> DecodeError:
    """The error; there must be one, with a reason that is known."""
    with pytest.raises(DecodeError) as caught:
        decode_frame(subject, data)
    assert caught.value.reason in UNDECODABLE_REASONS
    return caught.value


def bproto(method: str, **fields: object) -> tuple[str, bytes]:
    """A 1.5 message: its subject and body."""
    side = "orchestrator.n-orch" if method.startswith("On") else "compute.n-c1"
    return f"node.{side}.{method}/v1", json.dumps({"SourcePeerID": "n-c9", **fields}).encode()


@pytest.mark.parametrize(
    ("release", "scenario", "line", "size", "head", "expected"),
    [
        ("1.9.3", "burst", 57, 2326, "013877acd6", {"kind": "AskForBid", "direct": False, "profile": "1.8+"}),
        ("1.9.3", "success", 2, 408, "01c557f009", {"kind": "BidResult", "accepted": True, "profile": "ncl"}),
        ("1.9.3", "success", 3, 416, "01f203992c", {"kind": "BidAccepted", "job": "", "node": "n-c1"}),
        ("1.9.3", "success", 4, 649, "011098a5ae", {"kind": "RunResult", "number": 6, "job": JOB}),
        ("1.9.3", "success", 5, 507, "0103a97cf8", {"kind": "CancelExecution", "echo": True, "number": 6}),
        ("1.9.3", "ops_with_rejection", 7, 599, "012b604509", {"kind": "BidResult", "accepted": False}),
        ("1.9.3", "execution_timeout", 4, 540, "01c439578d", {"kind": "ComputeError"}),
        ("1.9.3", "stop_running", 4, 408, "01a178dca5", {"kind": "CancelExecution", "echo": False}),
        ("1.9.3", "daemon_stop", 1, 2348, "0172291be2", {"kind": "AskForBid", "direct": True}),
        ("1.9.3", "update", 18, 2427, "0126a65e5f", {"kind": "AskForBid", "version": 2, "state": "Pending"}),
        ("1.9.3", "execution_timeout", 6, 2373, "01c9ab702f", {"kind": "AskForBid", "state": "Running"}),
        ("1.9.3", "orchestrator_restart", 19, 642, "013cc0f2ce", {"kind": "RunResult"}),
        ("1.6.1", "stop_running", 4, 408, "015ba0ecad", {"kind": "CancelExecution", "echo": False}),
        ("1.7.0", "daemon_stop", 1, 2333, "01d277e55f", {"kind": "AskForBid", "profile": "1.6-1.7", "version": 0}),
        ("1.5.2", "daemon_stop", 1, 2051, "", {"kind": "AskForBid", "direct": True, "profile": "1.5.2"}),
        ("1.5.2", "success", 2, 249, "", {"kind": "BidResult", "accepted": True, "profile": "1.5.2", "node": "n-c1"}),
        ("1.5.0", "burst", 55, 1854, "", {"kind": "AskForBid", "profile": "1.5.0", "revision": 1}),
        ("1.5.0", "success", 3, 138, "", {"kind": "BidAccepted", "node": "n-c1", "profile": "1.5"}),
        ("1.5.0", "success", 4, 302, "", {"kind": "RunResult", "profile": "1.5.0", "node": "n-c1"}),
        ("1.5.0", "stop_running", 4, 174, "", {"kind": "CancelExecution", "profile": "1.5.0", "echo": False}),
        ("1.5.0", "stop_running", 5, 151, "", {"kind": "CancelResult", "profile": "1.5.0"}),
        ("1.5.0", "stop_running", 6, 376, "", {"kind": "ComputeError", "profile": "1.5"}),
    ],
)
def test_the_sample_frames(
    release: str, scenario: str, line: int, size: int, head: str, expected: dict[str, object]
) -> None:
    """Each sample of design/bacalhau.md 9 decodes to what its row says."""
    subject, data = messages(release, scenario)[line - 1]
    assert len(data) == size
    assert not head or data[:5].hex() == head
    frame = read(subject, data)
    found = msgspec.structs.asdict(frame)
    if frame.snapshot is not None:
        found |= msgspec.structs.asdict(frame.snapshot)
        found["job"] = frame.job
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_every_recorded_frame_decodes(folder: Path) -> None:
    """No recorded frame is undecodable or passed over; its profile is the release's, its job one of the record's."""
    release = folder.parent.name.removeprefix("bacalhau-v")
    profiles = {
        "1.5.0": {"1.5.0", "1.5"},
        "1.5.2": {"1.5.2", "1.5"},
        "1.6.1": {"1.6-1.7", "ncl"},
        "1.7.0": {"1.6-1.7", "ncl"},
        "1.9.3": {"1.8+", "ncl"},
    }[release]
    known = set(samples.document(folder, "scenario.json")["expect"])
    for subject, data in messages(release, folder.name):
        frame = read(subject, data)
        assert frame.profile in profiles
        assert frame.execution.startswith("e-")
        assert frame.node.startswith("n-c")
        assert frame.job in known | {""}
        assert (frame.snapshot is not None) == (frame.kind is FrameKind.ASK_FOR_BID)


def test_an_echo_repeats_an_end_it_followed() -> None:
    """On 1.9.3 a cancel is an echo exactly if its Events are filled; without them it is a real one."""
    payload: dict[str, object] = {"ExecutionID": "e-1"}
    assert read(IN, ncl("CancelExecution", payload | {"Events": ECHO})).echo
    assert not read(IN, ncl("CancelExecution", payload | {"Events": []})).echo
    assert not read(IN, ncl("CancelExecution", payload | {"Events": None})).echo
    assert not read(IN, ncl("CancelExecution", payload)).echo
    assert not read(IN, ncl("BidAccepted", payload | {"Events": ECHO})).echo


@pytest.mark.parametrize(
    "subject",
    [
        "bacalhau.global.compute.n-c1.out.ctrl",
        "bacalhau.global.compute.n-c1.out.requests",
        "bacalhau.global.compute.n-c1.out.heartbeat",
        "bacalhau.global.compute.n-c1.in.msgs.more",
        "bacalhau.global.compute.in.msgs",
        "heartbeat",
        "node.management.n-c1.RegisterNode/v1",
        "node.compute.n-c1.ExecutionLogs/v1",
        "node.compute.n-c1",
        "_INBOX.abc.def",
        "$KV.node_v1.n-c1",
        "",
        "node.comp\udcffute.n-c1.AskForBid/v1",
    ],
)
def test_what_is_not_for_us_is_not_looked_at(subject: str) -> None:
    """Control plane, logs, replies and the like are None, whatever the bytes are."""
    assert decode_frame(subject, b"\xff not a frame") is None


def test_the_canary_is_in_no_decoded_object() -> None:
    """What the `secret` recording hides in Env and an inline input is in its bytes, and in no frame read from them."""
    recorded = messages("1.9.3", "secret")
    assert any(CANARY.encode() in data for _, data in recorded)
    for subject, data in recorded:
        frame = read(subject, data)
        assert CANARY.encode() not in msgspec.json.encode(frame)
        junk = malformed_frame(subject, data, DecodeError("bad-crc", "x"))
        assert CANARY.encode() not in msgspec.json.encode(junk)


def test_the_canary_is_not_even_decoded() -> None:
    """The structs between the bytes and the frame have no place for it either, nor for what a job wrote."""
    seen = 0
    for _, data in messages("1.9.3", "secret"):
        envelope = open_envelope(data)
        shapes: dict[str, type[msgspec.Struct]] = {
            "AskForBid": ncl_profile._AskForBid,
            "RunResult": ncl_profile._Result,
        }
        shape = shapes.get(envelope.type, ncl_profile._Order)
        decoded = msgspec.json.encode(msgspec.json.decode(envelope.payload, type=shape))
        assert CANARY.encode() not in decoded
        assert b"Stdout" not in decoded
        seen += CANARY.encode() in data
    assert seen
    secrets = {"Env", "Meta", "Params", "InputSources", "RunCommandResult", "Labels", "Stdout", "stderr"}
    for module in (document, ncl_profile, bprotocol):
        kinds = [kind for kind in vars(module).values() if isinstance(kind, type)]
        structs = [kind for kind in kinds if issubclass(kind, msgspec.Struct)]
        assert structs
        for struct in structs:
            assert not secrets & set(struct.__struct_fields__)
            assert "Event" not in struct.__name__ or struct.__struct_fields__ == ("Message", "Timestamp")


def test_no_error_quotes_the_canary() -> None:
    """However the frames of the `secret` recording are cut or bent, neither error nor junk says what they held."""
    subject, data = next(row for row in messages("1.9.3", "secret") if CANARY.encode() in row.data)
    body = data[5:]
    bent = [
        seal(body[: body.index(CANARY.encode()) + len(CANARY)]),
        seal(body.replace(b'"Count":1', b'"Count":"' + CANARY.encode() + b'"')),
        seal(body.replace(b'"StateType":"Pending"', b'"StateType":"' + CANARY.encode() * 9 + b'"')),
        seal(body.replace(b'"Bacalhau-Type":"AskForBid"', b'"Bacalhau-Type":"my ' + CANARY.encode() + b'"')),
        data[:5] + body[:-1],
    ]
    for frame in bent:
        error = refuse(subject, frame)
        assert CANARY not in str(error) + repr(error)
        assert error.__cause__ is None
        assert error.__context__ is None
        assert CANARY.encode() not in msgspec.json.encode(malformed_frame(subject, frame, error))


def test_junk_of_a_frame_has_no_bytes() -> None:
    """A frame's junk says where, how large and which digest; the same bytes have the same origin, one clean token."""
    error = DecodeError("bad-crc", "the checksum is another body's")
    junk = malformed_frame(IN, b"\x01secret", error)
    assert (junk.reason, junk.source, junk.subject, junk.size, junk.data) == ("bad-crc", "frame", IN, 7, None)
    assert junk.origin == malformed_frame(OUT, b"\x01secret", error).origin
    assert junk.origin != malformed_frame(IN, b"\x01secreT", error).origin
    assert junk.origin.replace("-", "").isalnum()


@pytest.mark.parametrize(
    ("type_name", "detail"),
    [("Frobnicate", "Frobnicate"), ("transport.HandshakeRequest", "transport.HandshakeRequest")],
)
def test_an_unknown_type_is_named(type_name: str, detail: str) -> None:
    """An unknown type is `unknown-type`, with its name, in NCL as in a 1.5 subject."""
    error = refuse(OUT, ncl(type_name, {"whatever": 1}))
    assert (error.reason, error.detail) == ("unknown-type", detail)


@pytest.mark.parametrize("type_name", ["x" * 65, "two words", "\u001b[31m", "\u202eevil", "\u00fc", "a\nb"])
def test_an_odd_type_name_is_only_a_digest(type_name: str) -> None:
    """A name that is long or not plain ASCII is never repeated."""
    error = refuse(OUT, ncl(type_name, None))
    assert error.reason == "unknown-type"
    assert error.detail.startswith("=")
    assert len(error.detail) == 65


def test_an_unknown_method_is_named() -> None:
    """A 1.5 method that does not exist, or a version of one, is `unknown-type`."""
    assert refuse("node.compute.n-c1.AskForBid/v2", b"{}").detail == "AskForBid/v2"
    assert refuse("node.orchestrator.n-orch.OnFire/v1", b"{}").reason == "unknown-type"


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf{}",
        '{"metadata":null}'.encode("utf-16"),
        b'{"metadata":{"Type":"RunResult"}}\0',
        b'{"metadata":{"Type":"RunResult"}}{}',
        b'{"metadata":{"Type":"RunResult",}}',
        b'{"metadata":{"Type":"RunResult"}/* no */}',
        b"{'metadata':null}",
        b'{"metadata":{"Type":"Run\nResult"}}',
        b'{"metadata":{"Type":"\\ud800"}}',
        b'{"metadata":{"Type":"RunResult"},"payload":{"JobID":NaN}}',
        b'{"metadata":{"Type":"RunResult"},"payload":{"JobID":Infinity}}',
        b'{"metadata":{"Type":"RunResult"},"payload":{"ExitCode":01}}',
        b'{"metadata":{"Type":"RunResult"},"payload":{"ExitCode":+1}}',
        b'{"metadata":{"Type":"RunResult"},"payload":{"ExitCode":0x10}}',
    ],
)
def test_bytes_that_are_no_json(body: bytes) -> None:
    """BOM, UTF-16, NUL, two documents, trailing comma, comment, quotes, raw control, lone surrogate, odd numbers."""
    assert refuse(OUT, seal(body)).reason == "not-json"


def test_white_space_around_is_accepted() -> None:
    """Blanks and line ends around the document are no error."""
    body = json.dumps({"metadata": {"Type": "RunResult"}, "payload": {"ExecutionID": "e", "JobID": "j"}}).encode()
    assert read(OUT, seal(b" \n" + body + b"\r\n\t ")).job == "j"


@pytest.mark.parametrize("raw", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80"])
def test_text_that_is_not_utf8(raw: bytes) -> None:
    """An invalid byte, an overlong form, an encoded surrogate: `not-utf8` in a field that is read, unseen elsewhere."""
    body = b'{"metadata":{"Type":"RunResult"},"payload":{"ExecutionID":"%s","JobID":"j","x":"%s"}}'
    assert refuse(OUT, seal(body % (raw, b""))).reason == "not-utf8"
    assert read(OUT, seal(body % (b"e", raw))).execution == "e"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"metadata":{"Type":"\xff"},"payload":[]}', "not-utf8"),
        (b'{"metadata":{"Type":"\xc3', "not-json"),
        (b'{"metadata":{"Type":"\xff"},"payload":{', "not-json"),
        (b'{"metadata":{"Type":"\xef\xbf\xbd"},"payload":{', "not-json"),
        (b"\x1f\x8b\x08\xff", "not-json"),
        (b'{"metadata":{"Type":"\xff"},"payload":' + b"[" * 500_000, "too-deep"),
    ],
)
def test_bytes_that_are_not_utf8_and_no_json(body: bytes, reason: str) -> None:
    """`not-utf8` means that nothing else keeps it from being read, whatever msgspec raises: a cut body is none."""
    error = refuse(OUT, seal(body))
    assert error.reason == reason
    assert error.__context__ is None


@pytest.mark.parametrize("text", ["\\u0000", "\\u001b[2J", "\\u202e", "\\ud83d\\ude00"])
def test_odd_characters_by_escape_are_accepted(text: str) -> None:
    """NUL, ESC, right-to-left and four-byte characters are a name like any other."""
    body = f'{{"metadata":{{"Type":"RunResult"}},"payload":{{"ExecutionID":"{text}","JobID":"j"}}}}'
    assert read(OUT, seal(body.encode())).execution == json.loads(f'"{text}"')


@pytest.mark.parametrize("field", ["Version", "Revision", "Count"])
@pytest.mark.parametrize(
    ("spelled", "accepted"),
    [("4294967295", NUMBER_MAX), ("4294967296", 2**32), ("9223372036854775808", 2**63), ("-0", 0)]
    + [("18446744073709551615", 2**64 - 1)]
    + [(text, None) for text in ("18446744073709551616", "-9223372036854775809", "-1", "9" * 4300, "9" * 5001)]
    + [(text, None) for text in ("1e400", "1.5", '"1"', "true", "null", "[]", "{}")],
)
def test_numbers(field: str, spelled: str, accepted: int | None) -> None:
    """A uint64 up to its last is one, anything else is `wrong-shape`. As a place in a record it must be real, too."""
    body = json.dumps(ask_payload(**{field: "@"})).replace('"@"', spelled).encode()
    data = seal(b'{"metadata":{"Type":"AskForBid"},"payload":' + body + b"}")
    if accepted is None:
        assert refuse(IN, data).reason == "wrong-shape"
    elif field != "Count" and accepted > NUMBER_MAX:
        assert refuse(IN, data).reason == "out-of-range"
    else:
        snapshot = read(IN, data).snapshot
        assert snapshot is not None
        assert getattr(snapshot, field.lower()) == accepted


@pytest.mark.parametrize("version", [2**32, 2**64 - 1])
@pytest.mark.parametrize("job", [{}, {"Job": None}])
def test_an_execution_of_a_version_that_cannot_be_real_is_refused(version: int, job: dict[str, object]) -> None:
    """Without an orchestrator it alone says of which life the job is: every frame after it would be late, for ever."""
    execution = ask_payload()["Execution"] | {"JobVersion": version} | job
    assert refuse(IN, ncl("AskForBid", {"Execution": execution})).reason == "out-of-range"


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "x",
        1,
        {},
        {"Execution": None},
        {"Execution": []},
        {"Execution": "x"},
        {"execution": {"ID": "e"}},
        {"Execution": {"JobID": "j"}},
        {"Execution": {"ID": None, "JobID": "j"}},
        {"Execution": {"ID": "e", "JobID": "j", "Job": "x"}},
        {"Execution": {"ID": "e", "JobID": "j", "Job": {"ID": "j"}}},
        ask_payload(State=None),
        ask_payload(State="Running"),
        ask_payload(State={"StateType": 3}),
        ask_payload(State={"StateType": None}),
        ask_payload(Namespace=None),
    ],
)
def test_another_structure_is_wrong_shape(payload: object) -> None:
    """Array for object, string for object, null or nothing for what is needed, a key in another case."""
    assert refuse(IN, ncl("AskForBid", payload)).reason == "wrong-shape"


def test_of_two_equal_keys_the_last_counts() -> None:
    """A duplicate key is no error; the last one wins, and the first is still checked."""
    body = b'{"metadata":{"Type":"RunResult"},"payload":{"ExecutionID":%s,"\\u0045xecutionID":"last","JobID":"j"}}'
    assert read(OUT, seal(body % b'"first"')).execution == "last"
    assert refuse(OUT, seal(body % b"1")).reason == "wrong-shape"


@pytest.mark.parametrize("where", ['"Env":%s', '"payload":%s', '"metadata":{"x":%s}'])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth(where: str, opening: str, closing: str) -> None:
    """500,000 levels are `too-deep`, also in a field that is skipped; the reader goes on with the next message."""
    deep = opening * 500_000 + "1" + closing * 500_000
    field = where % deep
    if where.startswith('"Env"'):
        field = '"metadata":{"Type":"RunResult"},"payload":{"ExecutionID":"e","JobID":"j",' + field + "}"
    assert decode_error_of("{" + field + "}") == "too-deep"
    assert read(OUT, ncl("RunResult", {"ExecutionID": "e", "JobID": "j"})).job == "j"


def decode_error_of(body: str) -> str:
    """The reason of a body that may be larger than a message."""
    with pytest.raises(DecodeError) as caught:
        decode_frame(OUT, seal(body.encode()), max_bytes=1 << 24)
    return caught.value.reason


@pytest.mark.parametrize("levels", [500, 800])
def test_moderate_depth_is_accepted(levels: int) -> None:
    """What a person might still call data is read, with the stack of a test run below it."""
    env = "[" * levels + "]" * levels
    body = f'{{"metadata":{{"Type":"RunResult"}},"payload":{{"ExecutionID":"e","JobID":"j","Env":{env}}}}}'
    assert read(OUT, seal(body.encode())).job == "j"


def test_size() -> None:
    """A message at the bound is read, one byte more is `too-large`, none at all is `empty`."""
    body = b'{"metadata":{"Type":"RunResult"},"payload":{"ExecutionID":"e","JobID":"j","Env":"%s"}}'
    padding = MESSAGE_MAX - 5 - len(body % b"")
    assert read(OUT, seal(body % (b"x" * padding))).job == "j"
    assert refuse(OUT, seal(body % (b"x" * (padding + 1)))).reason == "too-large"
    assert refuse(OUT, b"").reason == "empty"
    for method in ("AskForBid", "OnRunComplete"):
        assert refuse(bproto(method)[0], b"x" * (MESSAGE_MAX + 1)).reason == "too-large"


@pytest.mark.parametrize(
    "time",
    ["0", "-1", "null", '"2026-11-24T06:54:23Z"', "1.5", "9223372036854775808", "9" * 5001, "[]", "true"],
)
def test_an_unreadable_time_is_none(time: str) -> None:
    """A time is a detail: one that cannot be read is None, and the frame stands."""
    body = json.dumps(ask_payload(ModifyTime="@", CreateTime="@")).replace('"@"', time).encode()
    snapshot = read(IN, seal(b'{"metadata":{"Type":"AskForBid"},"payload":' + body + b"}")).snapshot
    assert snapshot is not None
    assert (snapshot.created, snapshot.modified, snapshot.modified_ns) == (None, None, 0)


def test_the_event_times_of_1_5_are_no_error() -> None:
    """An Event with any Timestamp at all leaves the message readable."""
    stamps: tuple[object, ...] = (
        "0001-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "",
        5,
        None,
        [[]],
    )
    for stamp in stamps:
        event = {"Event": {"Message": "", "Topic": "", "Timestamp": stamp}}
        subject, data = bproto("OnBidComplete", ExecutionID="e", JobID="j", Accepted=True, **event)
        expected = "1.5.2" if stamp == "0001-01-01T00:00:00Z" else "1.5.0"
        assert read(subject, data).profile == expected


@pytest.mark.parametrize(
    "job",
    ["x" * ID_MAX, "with space", "a.b", "*", ">", "a/b", "a\0b", "a\nb", "not-a-j", "=41", "J-UPPER", "\u202e"],
)
def test_any_job_id_and_namespace_is_a_name(job: str) -> None:
    """Whatever Bacalhau accepted as a name comes through as it is."""
    snapshot = read(IN, ncl("AskForBid", ask_payload(ID=job, Namespace=job))).snapshot
    assert snapshot is not None
    assert (snapshot.job.id, snapshot.job.namespace) == (job, job)


@pytest.mark.parametrize("field", ["ID", "Namespace"])
def test_a_job_whose_id_or_namespace_would_not_fit_into_an_entry(field: str) -> None:
    """Both stand whole in every update, so they cannot be cut as a name is."""
    subject, data = IN, ncl("AskForBid", ask_payload(**{field: "x" * (ID_MAX + 1)}, Name="n"))
    assert refuse(subject, data).reason == "wrong-shape"


@pytest.mark.parametrize("field", ["ExecutionID", "JobID"])
def test_an_execution_or_job_of_a_message_has_a_bounded_name(field: str) -> None:
    """A hundred thousand executions are remembered: their names must not be a megabyte each."""
    payload = {"ExecutionID": "e", "JobID": "j", field: "x" * (ID_MAX + 1)}
    assert refuse(OUT, ncl("RunResult", payload)).reason == "wrong-shape"


def test_no_job() -> None:
    """A message that must name a job or execution and does not is `no-job`; one that names two is `wrong-shape`."""
    assert refuse(IN, ncl("AskForBid", ask_payload(ID=""))).reason == "no-job"
    assert refuse(OUT, ncl("RunResult", {"ExecutionID": "e", "JobID": ""})).reason == "no-job"
    assert refuse(OUT, ncl("RunResult", {"ExecutionID": "e"})).reason == "no-job"
    assert refuse(IN, ncl("BidAccepted", {"ExecutionID": ""})).reason == "no-job"
    assert refuse(*bproto("OnRunComplete", ExecutionID="e")).reason == "no-job"
    assert refuse(*bproto("CancelExecution", ExecutionID="")).reason == "no-job"
    assert refuse(IN, ncl("BidAccepted", {})).reason == "wrong-shape"
    other = ask_payload()
    other["Execution"]["JobID"] = "j-other"
    assert refuse(IN, ncl("AskForBid", other)).reason == "wrong-shape"


def test_an_ask_without_the_job_still_names_it() -> None:
    """An AskForBid whose Job is null is a hint for `JobID`, without a snapshot."""
    frame = read(IN, ncl("AskForBid", {"Execution": {"ID": "e", "JobID": "j", "Job": None}}))
    assert (frame.job, frame.snapshot) == ("j", None)


def test_an_ask_that_only_its_job_names() -> None:
    """The execution need not say whose it is; without an id of its own it is `no-job`."""
    payload = ask_payload()
    payload["Execution"]["JobID"] = ""
    assert read(IN, ncl("AskForBid", payload)).job == JOB
    payload["Execution"]["ID"] = ""
    assert refuse(IN, ncl("AskForBid", payload)).reason == "no-job"


@pytest.mark.parametrize(
    ("method", "reason"), [("OnComputeFailure", "no disk"), ("OnRunComplete", ""), ("OnBidComplete", "")]
)
def test_only_a_failure_of_1_5_has_a_reason(method: str, reason: str) -> None:
    """What others say beside is not read."""
    frame = read(*bproto(method, ExecutionID="e", JobID="j", Event={"Message": "no disk"}))
    assert frame.reason == reason


@pytest.mark.parametrize(
    ("spelled", "state"),
    [("Running", "Running"), ("rUNNING", "Running"), (" Queued\t", "Queued"), ("JobStateTypeStopped", "Stopped")]
    + [(text, None) for text in ("Undefined", "", "Bogus", "9", "Run ning", "\u202e")],
)
def test_states(spelled: str, state: str | None) -> None:
    """Case and blanks around aside, as Bacalhau's reader; the documentation's Stopped; the rest `unknown-state`."""
    data = ncl("AskForBid", ask_payload(State={"StateType": spelled}))
    if state is None:
        assert refuse(IN, data).reason == "unknown-state"
    else:
        snapshot = read(IN, data).snapshot
        assert snapshot is not None
        assert snapshot.state == state


def test_the_subject_of_a_bid_is_its_verdict() -> None:
    """1.5's BidAccepted says `Accepted: false` and approves; a refused OnBidComplete is not accepted."""
    assert read(*bproto("BidAccepted", ExecutionID="e", Accepted=False)).kind is FrameKind.BID_ACCEPTED
    assert read(*bproto("BidRejected", ExecutionID="e")).kind is FrameKind.BID_REJECTED
    frame = read(*bproto("OnBidComplete", ExecutionID="e", JobID="j", Accepted=False, Event={"Message": "no"}))
    assert (frame.accepted, frame.profile, frame.node) == (False, "1.5", "n-c9")


def test_what_the_derivation_reads() -> None:
    """Version and partition of an execution (sample 10), why it failed (sample 7), and 1.5.0's reason of a cancel."""
    update = read(*messages("1.9.3", "update")[17])
    assert (update.version, update.partition) == (2, 1)
    failed = read(*messages("1.9.3", "execution_timeout")[3])
    assert failed.kind is FrameKind.COMPUTE_ERROR
    assert failed.reason.startswith("Execution timed out")
    assert [read(*message).stopped for message in messages("1.5.0", "stop_running")[3:6]] == [True, False, False]
    assert not any(read(*message).stopped for message in messages("1.5.2", "stop_running"))
    old = read(*messages("1.5.0", "trap")[3])
    assert old.kind is FrameKind.COMPUTE_ERROR
    assert old.reason


def test_how_long_ago_an_execution_had_ended() -> None:
    """Milliseconds, by the node's clock; a node that repeats an end after a restart says when that was (18 s ago)."""
    fresh = read(*messages("1.9.3", "success")[3])
    assert fresh.kind is FrameKind.RUN_RESULT
    assert 0 < fresh.ended_ago_s < 0.1
    results = [read(*one) for one in messages("1.9.3", "orchestrator_restart")]
    assert max(frame.ended_ago_s for frame in results) > 18


@pytest.mark.parametrize("stamp", ["", "0001-01-01T00:00:00Z", "2026-11-24", 5, None, "2100-01-01T00:00:00Z"])
def test_an_end_without_a_time_that_can_be_is_now(stamp: object) -> None:
    """A time is never worth an error."""
    events = [{"Message": "", "Timestamp": stamp}]
    given: tuple[dict[str, object], ...] = ({"Events": events}, {"Events": []}, {})
    for fields in given:
        result = ncl("RunResult", {"ExecutionID": "e", "JobID": "j", **fields}, EventTime="1795503263448525091")
        assert read(OUT, result).ended_ago_s == 0.0


@pytest.mark.parametrize("message", [12, None, ["x"], {"x": 1}])
def test_a_reason_that_is_no_text_is_none(message: object) -> None:
    """Why an execution failed is a detail, never worth an error; and only a failure has one."""
    payload = {"ExecutionID": "e", "JobID": "j", "Events": [{"Message": message}, {"Message": "second"}]}
    assert read(OUT, ncl("ComputeError", payload)).reason == ""
    assert read(OUT, ncl("ComputeError", payload | {"Events": []})).reason == ""
    assert read(OUT, ncl("RunResult", payload | {"Events": [{"Message": "fine"}]})).reason == ""
    long = read(OUT, ncl("ComputeError", payload | {"Events": [{"Message": "x" * 500_000}]}))
    assert len(long.reason) == TEXT_MAX
