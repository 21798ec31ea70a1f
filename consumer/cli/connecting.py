"""The way of a verb to the log: where it is, by the options; the connection; the newest entries.

Importing this is cheap on purpose (`jobstate VERB --help`): what talks to NATS is imported when it is used.
"""

import os
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from consumer.cli.options import Cluster, Config, Group, Nats, TokenFile
from consumer.cli.running import tell
from consumer.errors import ServerError

if TYPE_CHECKING:
    from consumer.core.appends import Entry
    from consumer.jetstream.view import View
    from consumer.rules import Rules
    from consumer.settings import Settings

_GRANT: Final = "grant this user what docs/operations/running.md#permissions lists for a reader (to send: a producer)"
_OURS: Final = ("JOBSTATE_NATS__", "JOBSTATE_CLUSTER", "JOBSTATE_RULES__FILE")
"""Prefixes of the variables that a reading verb uses."""


@dataclass(frozen=True)
class LogTarget(Group):
    """The options that say where the log is. None: from the environment, the file or the default."""

    nats: Nats = None
    cluster: Cluster = None
    config: Config = None
    token_file: TokenFile = None

    def settings(self) -> "Settings":
        """The settings, as far as a reader needs them. Raises `SettingsError`."""
        from consumer.settings import CONFIG, Given, check_names, load

        token_file = None if self.token_file is None else str(self.token_file)
        said = (
            ("--nats", "nats.url", self.nats),
            ("--cluster", "cluster", self.cluster),
            ("--token-file", "nats.token_file", token_file),
        )
        check_names(os.environ)
        # The daemon's other variables may name files that a reader may not open.
        environ = {name: text for name, text in os.environ.items() if name.startswith(_OURS)}
        file = os.environ.get(CONFIG)
        return load(
            self.config or (Path(file) if file else None),
            environ,
            [Given(option, name, text) for option, name, text in said if text is not None],
        )

    def rules(self) -> "Rules":
        """The rules by which states are spelled. Raises `SettingsError`, `RulesError`."""
        from consumer.rules import load
        from consumer.settings import RULES_FILE

        return load(self.settings().rules.path, RULES_FILE)


@asynccontextmanager
async def connected(log: LogTarget, within_s: float | None = None) -> AsyncIterator["View"]:
    """The cluster's streams, through a connection of their own. Raises `ServerError`: nobody answers, or we may not.

    *within_s*: so long it is tried, if that is shorter than usual.
    """
    from consumer.jetstream.view import CONNECT_S, View, connect_reader
    from consumer.observe.log import configure
    from consumer.settings import Log, redact
    from consumer.wire.subjects import Names

    settings = log.settings()
    # Troubles of a connection belong into the daemon's log; a verb says them in a sentence of its own.
    configure(Log(level="error", format="console"))
    for sentence in settings.warnings:
        tell(sentence)
    bound_s = CONNECT_S if within_s is None else min(within_s, CONNECT_S)
    client = await connect_reader(settings.nats, settings.cluster, within_s=bound_s)
    try:
        yield View(client, Names(settings.cluster), where=redact(settings.nats.url), tell=tell)
    except ServerError as error:
        if not error.is_denied:
            raise
        raise ServerError(f"{error}: {_GRANT}", fault=error.fault) from error
    finally:
        await client.close()


async def newest(entries: AsyncIterable["Entry"], limit: int) -> "Sequence[Entry]":
    """The last *limit* of *entries*, in their order; all of them if it is 0."""
    found: deque[Entry] = deque(maxlen=limit or None)
    async for entry in entries:
        found.append(entry)
    return found
