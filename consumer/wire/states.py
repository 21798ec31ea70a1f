"""How Bacalhau spells a job's state. It does not know transitions."""

from typing import Final

from consumer.errors import DecodeError
from consumer.model import JobStateType
from consumer.wire.decoding import name_clean

_SPELLINGS: Final = {state.value.lower(): state.value for state in JobStateType} | {
    # The documentation's spelling; wire and API say Stopped (design/bacalhau.md 4.2).
    "jobstatetypestopped": JobStateType.STOPPED.value,
}


def read_state(text: str) -> str:
    """The state that *text* names, case and surrounding blanks aside as Bacalhau's own reader does.

    Raises `DecodeError` `unknown-state`, also for `Undefined`: Bacalhau keeps no job in it.
    """
    state = _SPELLINGS.get(text.strip().lower())
    if state is None:
        raise DecodeError("unknown-state", f"Bacalhau has no job state {name_clean(text)}")
    return state
