"""A log in memory that answers at once: what `jobstate replay` writes to. One writer, no faults.

It keeps the compare-and-set as the server does. The log with faults is the tests' (`tests/lab/simulation`).
"""

from consumer.core.appends import Answer, Append, Entry, Read, ReadBack, Refused, Stored


class MemoryLog:
    """Streams "log" and "refused" in one numbering. Every subject under a filter must be written with that filter."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._last: dict[str, int] = {}

    def answer(self, ask: Append | ReadBack) -> Answer:
        """Carry *ask* out."""
        if isinstance(ask, ReadBack):
            prefix = ask.filter.removesuffix("*")
            found = [entry for entry in self.entries if entry.subject.startswith(prefix)]
            return Read(tuple(found if ask.whole else found[-1:]))
        last = self._last.get(ask.filter, 0)
        if last != ask.expected:
            return Refused(last)
        number = len(self.entries) + 1
        self.entries.append(
            Entry(
                number=number,
                subject=ask.subject,
                body=ask.body,
                input=ask.input,
                expected=ask.expected,
                filter=ask.filter,
            )
        )
        self._last[ask.filter] = number
        return Stored(number)
