"""Real frames, reports and REST bodies, bent at random: what must never raise anything but `DecodeError`."""

import json
import random
from collections.abc import Callable, Iterator
from functools import cache, partial

from consumer.errors import DecodeError
from consumer.model import UNDECODABLE_REASONS, InputPosition
from consumer.wire import (
    Names,
    decode_frame,
    decode_history,
    decode_job,
    decode_report,
    decode_update,
    encode_update,
    malformed_frame,
    malformed_report,
)
from consumer.wire.entries import encode_undecodable
from tests.wire.samples import document, folders, messages, reports, seal
from tests.wire.test_update import UPDATE

NAMES = Names("main")
HERE = InputPosition(1, 1)
SUBJECTS = ("jobstate.v1.main.in.default.j-0b16268c-97b5-4003-9a08-7f7ff52bd5bd", "jobstate.v1.main.in.a=2Eb.j=20")
SCENARIOS = (("1.9.3", "success"), ("1.9.3", "update"), ("1.6.1", "ops"), ("1.5.0", "stop_running"), ("1.5.2", "ops"))
DICTIONARY = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-0", b"1e400", b"NaN", b"9" * 4301),
    *(b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\0", b"\x1b", b"\xe2\x80\xae", b"=", b"18446744073709551616"),
    *(
        b'"StateType"',
        b'"Job"',
        b'"Time":"0001-01-01T00:00:00+05:00"',
        b'"Events":[{}]',
        b"[" * 20_000,
        b'{"a":' * 20_000,
    ),
)

Target = tuple[str, bytes, Callable[[bytes], None]]


@cache
def targets() -> tuple[Target, ...]:
    """Name, bytes, and the reader that they are for."""
    found: list[Target] = []
    for release, scenario in SCENARIOS:
        for subject, data in messages(release, scenario)[:40]:
            found.append((f"frame {release}", data, partial(_frame, subject)))
            if data[:1] == b"\x01":
                # The checksum set right again, so that what is behind it is bent too.
                found.append((f"sealed {release}", data[5:], partial(_sealed, subject)))
    for subject in SUBJECTS:
        found.extend(("report", data, partial(_report, subject)) for data in reports() * 20)
    folder = next(folder for folder in folders() if folder.name == "rerun")
    for path, body in document(folder, "final.json").items():
        reader = decode_history if "/history" in path else decode_job
        found.append(("rest", json.dumps(body).encode(), partial(_call, reader)))
    found.append(("update", encode_update(UPDATE), partial(_call, decode_update)))
    return tuple(found)


def bend(data: bytes, chance: random.Random) -> bytes:
    """*data* with one to four bytes or pieces changed, put in, left out, doubled or cut."""
    bent = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(bent) + 1)
        to = min(len(bent), at + chance.choice((1, 2, 8, 64)))
        match chance.randrange(6):
            case 0 if at < len(bent):
                bent[at] ^= 1 << chance.randrange(8)
            case 1:
                bent[at:at] = chance.choice(DICTIONARY)
            case 2:
                del bent[at:to]
            case 3:
                bent[at:at] = bent[at:to]
            case 4:
                del bent[at:]
            case _:
                bent[at:to] = chance.choice(DICTIONARY)
    return bytes(bent)


def run(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """Read *count* bent inputs; gives for each the target and what it came to. Raises what a reader must not raise."""
    chance = random.Random(seed)
    for _ in range(count):
        name, data, reader = chance.choice(targets())
        bent = bend(data, chance)
        try:
            reader(bent)
        except DecodeError as error:
            if error.reason not in UNDECODABLE_REASONS:
                raise AssertionError(f"{name}: no such reason: {error.reason}") from error
            yield name, error.reason
        else:
            yield name, "read"


def _frame(subject: str, data: bytes) -> None:
    try:
        decode_frame(subject, data)
    except DecodeError as error:
        encode_undecodable(malformed_frame(subject, data, error))
        raise


def _sealed(subject: str, data: bytes) -> None:
    _frame(subject, seal(data))


def _report(subject: str, data: bytes) -> None:
    try:
        decode_report(NAMES, subject, data, HERE)
    except DecodeError as error:
        encode_undecodable(malformed_report(subject, data, HERE, error))
        raise


def _call(reader: Callable[[bytes], object], data: bytes) -> None:
    reader(data)
