"""Every setting: its name, kind, bounds, default and meaning. `load` makes `Settings` of a file and the environment.

A file is TOML (`config/jobstate.toml` is the commented, complete one). The environment comes after it, key by key, as
`JOBSTATE_<SECTION>__<KEY>`. What cannot be understood is refused, never guessed. A secret stands in a file of its own
that a setting names (`read_secret` reads it when it is used), or in the environment (`Secret`); never in our file, and
nothing shows it.
"""

from consumer.settings.catalog import REMOVED, Setting, all_settings, bounds, choices, describe
from consumer.settings.loading import CONFIG, RULES_FILE, UNKNOWN_MAX, Given, check_names, load, utf8_of
from consumer.settings.schema import (
    GIB,
    MIB,
    Bacalhau,
    Checkpoint,
    Drain,
    Embedded,
    Http,
    Lanes,
    Limits,
    Log,
    Nats,
    Orchestrator,
    RulesChoice,
    Scan,
    Settings,
    Streams,
)
from consumer.settings.secrets import (
    ENVIRONMENT,
    Credentials,
    Secret,
    read_credentials,
    read_secret,
    redact,
    secret_of,
    trust,
)
from consumer.settings.together import is_host

__all__ = [
    "CONFIG",
    "ENVIRONMENT",
    "GIB",
    "MIB",
    "REMOVED",
    "RULES_FILE",
    "UNKNOWN_MAX",
    "Bacalhau",
    "Checkpoint",
    "Credentials",
    "Drain",
    "Embedded",
    "Given",
    "Http",
    "Lanes",
    "Limits",
    "Log",
    "Nats",
    "Orchestrator",
    "RulesChoice",
    "Scan",
    "Secret",
    "Setting",
    "Settings",
    "Streams",
    "all_settings",
    "bounds",
    "check_names",
    "choices",
    "describe",
    "is_host",
    "load",
    "read_credentials",
    "read_secret",
    "redact",
    "secret_of",
    "trust",
    "utf8_of",
]
