"""Real traffic for the tests of `consumer.wire`, and envelopes made by hand. No test stands here."""

import base64
import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

RECORDINGS: Final = Path(__file__).parents[1] / "recordings"
IN: Final = "bacalhau.global.compute.n-c1.in.msgs"
OUT: Final = "bacalhau.global.compute.n-c1.out.msgs"
NAMESPACE: Final = "default"
JOB: Final = "j-0b16268c-97b5-4003-9a08-7f7ff52bd5bd"
REPORTS: Final = "jobstate.v1.main.in."


class Message(NamedTuple):
    """One recorded NATS message."""

    subject: str
    data: bytes


@cache
def messages(release: str, scenario: str) -> tuple[Message, ...]:
    """All messages of one recording, in order."""
    lines = (RECORDINGS / f"bacalhau-v{release}" / scenario / "messages.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return tuple(Message(row["subject"], base64.b64decode(row["data"])) for row in rows)


def folders() -> list[Path]:
    """Every recording there is."""
    return sorted(path.parent for path in RECORDINGS.glob("*/*/final.json"))


@cache
def document(folder: Path, name: str) -> Any:
    """One of a recording's JSON files."""
    return json.loads((folder / name).read_text())


def seal(body: bytes, version: int = 1) -> bytes:
    """An envelope around *body*, with its right checksum."""
    return bytes([version]) + zlib.crc32(body).to_bytes(4, "big") + body


def ncl(type_name: str, payload: object, **metadata: object) -> bytes:
    """An envelope of the NCL type *type_name*."""
    keys: dict[str, object] = {"Bacalhau-Type": type_name, "Bacalhau-PayloadEncoding": "json"}
    keys.update({f"Bacalhau-{key}": value for key, value in metadata.items()})
    return seal(json.dumps({"metadata": keys, "payload": payload}).encode())


def ask_payload(**job: object) -> dict[str, Any]:
    """The payload of an AskForBid, with *job*'s fields changed."""
    fields: dict[str, object] = {
        "ID": JOB,
        "Name": "ok",
        "Namespace": NAMESPACE,
        "Type": "batch",
        "Count": 1,
        "State": {"StateType": "Pending"},
        "Version": 1,
        "Revision": 1,
        "CreateTime": 1795503263371000000,
        "ModifyTime": 1795503263371000999,
    }
    fields.update(job)
    return {
        "Events": None,
        "Execution": {
            "ID": "e-1",
            "JobID": fields["ID"],
            "Job": fields,
            "JobVersion": 1,
            "DesiredState": {"StateType": 0},
        },
    }


def reports() -> list[bytes]:
    """Reports as producers write them: bare, and with everything."""
    return [
        b'{"StateType":"Running"}',
        b'{"StateType":"Failed","Message":"no \\u003cdisk\\u003e \xe2\x82\xac","Details":{"a":"b"}}',
        json.dumps(
            {
                "StateType": "Completed",
                "Message": "done",
                "Job": {"ID": JOB, "Namespace": NAMESPACE, "Name": "n", "Type": "batch", "Version": 3, "Revision": 7},
                "Time": "2026-11-24T05:00:00.123456789+05:30",
                "Previous": "Running",
            }
        ).encode(),
    ]
