"""One recording of a real Bacalhau network, read from its folder (`tests/recordings/README.md` has the form).

The frames, and the orchestrator's last word. `consumer.replay.record` says what the record was at a time.
"""

import codecs
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec

from consumer.errors import RecordingError
from consumer.replay.record import Document, JobRecord, read_records

T = TypeVar("T")

_FILES: Final = ("messages.jsonl", "final.json", "clock.json")
_VERSION_PATH: Final = "/api/v1/agent/version"


class RecordedFrame(msgspec.Struct, frozen=True, kw_only=True):
    """One NATS message, seen *t* seconds after the recording's start. `reply`: whether it asked for an answer."""

    t: float
    subject: str
    data: bytes
    headers: dict[str, str] | None = None
    reply: bool = False


class _Clock(msgspec.Struct, frozen=True):
    start_ns: int


class _AgentVersion(msgspec.Struct, frozen=True):
    git_version: str = msgspec.field(name="GitVersion")


_frame_decoder: Final = msgspec.json.Decoder(RecordedFrame)
_final_decoder: Final = msgspec.json.Decoder(dict[str, Document])
_clock_decoder: Final = msgspec.json.Decoder(_Clock)


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A recording in memory.

    `name` is the path as it was given. `start_ns` is the wall clock's nanosecond at which the frames' `t` is 0: with it
    frames and record are on one clock. `documents` are the orchestrator's own, by request path; `frames` in order of
    arrival, `jobs` by creation.
    """

    name: str
    release: str
    start_ns: int
    frames: tuple[RecordedFrame, ...]
    documents: dict[str, Document]
    jobs: tuple[JobRecord, ...]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the folder *path*. Raises RecordingError that names the file and the reason."""
        name = str(path)
        folder = Path(name)
        for file in _FILES:
            if not (folder / file).is_file():
                raise RecordingError(f"{name}: no recording, it has no file {file}; name the folder of one scenario")
        documents = _read(folder / "final.json", _final_decoder)
        if _VERSION_PATH not in documents:
            raise RecordingError(f"{folder / 'final.json'}: the document {_VERSION_PATH} is missing")
        try:
            release = msgspec.convert(documents[_VERSION_PATH], _AgentVersion).git_version
            jobs = read_records(documents)
        except (msgspec.ValidationError, ValueError) as error:
            raise RecordingError(f"{folder / 'final.json'}: {error}") from error
        return cls(
            name=name,
            release=release,
            start_ns=_read(folder / "clock.json", _clock_decoder).start_ns,
            frames=_read_frames(folder / "messages.jsonl"),
            documents=documents,
            jobs=jobs,
        )

    @property
    def first_t(self) -> float:
        """Seconds on the frames' clock of the first frame or row of the record; 0 if there is none."""
        return min(self._times(), default=0.0)

    @property
    def last_t(self) -> float:
        """Seconds on the frames' clock of the last frame or row of the record; 0 if there is none."""
        return max(self._times(), default=0.0)

    def ns_of(self, t: float) -> int:
        """The wall clock's nanosecond of *t* seconds on the frames' clock."""
        return self.start_ns + round(t * 1e9)

    def _times(self) -> list[float]:
        rows = [(time - self.start_ns) / 1e9 for job in self.jobs for time in job.row_ns]
        return [frame.t for frame in self.frames] + rows


def _read(file: Path, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(_bytes_of(file))
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OSError) as error:
        raise RecordingError(f"{file}: {_why(error)}") from error


def _read_frames(file: Path) -> tuple[RecordedFrame, ...]:
    frames: list[RecordedFrame] = []
    try:
        lines = _bytes_of(file).splitlines()
    except OSError as error:
        raise RecordingError(f"{file}: {_why(error)}") from error
    for number, line in enumerate(lines, 1):
        try:
            frames.append(_frame_decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise RecordingError(f"{file}, line {number}: {error}") from error
    return tuple(frames)


def _bytes_of(file: Path) -> bytes:
    """The bytes of *file*, without a byte-order mark."""
    return file.read_bytes().removeprefix(codecs.BOM_UTF8)


def _why(error: Exception) -> str:
    """The reason alone: a system's error would repeat the path."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
