"""Every error of ours, by whose fault it is. A docstring is the sentence an operator reads; see `ExitCode`, too."""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from consumer.faults import ORCHESTRATOR, Denied, Fault, OrchestratorFault

if TYPE_CHECKING:  # `jobstate --help` loads this, and no more than it must
    from consumer.model.words import UndecodableReason

QUOTED_MAX: Final = 60
"""Characters of a value that an error shows."""


class ExitCode(IntEnum):
    """The exit codes of the process. Documented in docs/operations/exit-codes.md."""

    OK = 0
    WRONG = 1
    """The work ended and its answer is no: a verdict is wrong, a job ended otherwise, a check failed."""
    USAGE = 2
    """The command line or the configuration cannot be understood."""
    NO_INPUT = 3
    """A named thing is not there or of another kind: not a recording, no such job."""
    TIMEOUT = 4
    """The time that was given is over."""
    OUTPUT = 5
    """The output could not be written: the disk is full. The work itself may have been done."""
    AMBIGUOUS = 6
    """A name fits several things: several jobs of that name, several ids that begin with it."""
    TOPOLOGY = 10
    """A stream differs from what is needed, or belongs to other rules or another format."""
    SERVER = 11
    """The NATS server is too old, refuses us, or lacks JetStream."""
    FAULT = 12
    """A part of the daemon ended that must not: a bug or a lost connection that could not be replaced."""
    DRAIN = 13
    """The deadline of the drain passed with entries unconfirmed. Nothing is lost: the next start reads them again."""


def quoted(text: str) -> str:
    """*text* as an error shows what was given: in quotes, escaped as Python does, a long one cut."""
    return repr(text) if len(text) <= QUOTED_MAX else f"{text[:QUOTED_MAX]!r}… ({len(text)} characters)"


class JobstateError(Exception):
    """Base of all errors of ours. `exit_code` is what the process ends with when nobody mends it."""

    exit_code: ExitCode = ExitCode.FAULT

    def __init__(self, *arguments: object, fault: Fault | None = None) -> None:
        """*fault*: what it says, in fields, where somebody is to decide by it."""
        super().__init__(*arguments)
        self.fault = fault

    @property
    def is_denied(self) -> bool:
        """Whether a NATS server does not permit what was asked: trying again helps when somebody has granted it."""
        return self.fault is not None and self.fault.kind == "denied"

    @property
    def denied(self) -> Denied | None:
        """The permission that is missing, where the server has named it."""
        return None if self.fault is None else self.fault.denied


class DecodeError(JobstateError):
    """The sender wrote something we cannot read. Redelivery will not help.

    *cut*: it is JSON as far as it goes, and ends too early.
    """

    def __init__(self, reason: "UndecodableReason", detail: str = "", *, cut: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.cut = cut


class RulesError(JobstateError):
    """The rules file says something that cannot hold. Names file, key and reason."""

    exit_code = ExitCode.USAGE


class SettingsError(JobstateError):
    """The configuration says something that cannot hold. Names file, key, reason and the nearest name."""

    exit_code = ExitCode.USAGE


class ListenError(SettingsError):
    """The address of `http` cannot be listened on. *reason*: which, and why; the text adds the next step."""

    def __init__(self, reason: str, next_step: str) -> None:
        super().__init__(f"{reason}; {next_step}")
        self.reason: Final = reason


class TopologyError(JobstateError):
    """A stream is not what we need it to be. Shows the difference; nothing was altered."""

    exit_code = ExitCode.TOPOLOGY


class MissingStreamError(TopologyError):
    """Streams are absent, and `streams.mode` is "bind", so they are an operator's to make. *streams*: their names."""

    def __init__(self, streams: tuple[str, ...], where: object) -> None:
        named = f"the stream {streams[0]} is" if len(streams) == 1 else f"the streams {', '.join(streams)} are"
        super().__init__(
            f"{named} not on {where}, and streams.mode is bind: make what is missing, or let jobstate make it with "
            'streams.mode = "create"'
        )
        self.streams = streams


class ServerError(JobstateError):
    """The NATS server cannot do what we need (version, JetStream, permission)."""

    exit_code = ExitCode.SERVER


class RefusedError(ServerError):
    """The NATS server rejects our credentials. Asking again helps once somebody has mended them, there or here."""


class UnreachableError(ServerError):
    """No NATS server answers. Nothing is wrong with what was asked: asking again may help."""


class ConnectionLostError(JobstateError):
    """The writer's connection is gone. A sent message may or may not be stored; only the log itself can tell."""

    exit_code = ExitCode.SERVER


class LogWentBackError(JobstateError):
    """The log is not the one we knew: made anew, or shorter than what it confirmed. All memory is void; start again."""


class OrchestratorError(JobstateError):
    """The orchestrator's answer cannot be used, for the reason that `fault` gives; it is never a state.

    *detail*: what was found, never what a body holds. *retry_after_s*: how long the orchestrator asks us to wait.
    """

    fault: Fault

    def __init__(self, kind: OrchestratorFault, detail: str = "", retry_after_s: float | None = None) -> None:
        scope, step = ORCHESTRATOR[kind]
        text = f"{kind}: {detail}; {step}" if detail else f"{kind}; {step}"
        super().__init__(text, fault=Fault(kind=kind, detail=detail, next_step=step, scope=scope))
        self.kind: Final = kind
        self.retry_after_s: Final = retry_after_s


class AbsentError(JobstateError):
    """A named thing is not there: no log of that cluster, no such job. Says where it was looked for."""

    exit_code = ExitCode.NO_INPUT


class AmbiguousError(JobstateError):
    """A name fits several things. Names them, a line each."""

    exit_code = ExitCode.AMBIGUOUS


class RecordingError(JobstateError):
    """The path is no recording, or one of its files cannot be read. Names the file and the reason."""

    exit_code = ExitCode.NO_INPUT
