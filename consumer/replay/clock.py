"""The one clock that player and simulated orchestrator share: where on the recorded time line a replay stands."""

from collections.abc import Sequence

from consumer.replay.recording import Recording


class ReplayClock:
    """A position on the recorded wall clock (Unix ns). The player alone moves it, from happening to happening.

    Between two happenings nothing in the record changes, so a clock that stands still there answers as a running one.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self.now_ns = min((recording.ns_of(min(0.0, recording.first_t)) - 1 for recording in recordings), default=0)

    def advance(self, t_ns: int) -> None:
        """Move to *t_ns*; never back."""
        self.now_ns = max(self.now_ns, t_ns)
