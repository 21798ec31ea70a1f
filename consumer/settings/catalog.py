"""The settings one by one, as the reference, the loader and the options of verbs see them."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from consumer.settings.schema import Section, Settings
from consumer.settings.secrets import ENVIRONMENT, Secret


class Setting(NamedTuple):
    """One setting, as the reference and the loader see it. `section` is empty for `cluster`."""

    section: str
    key: str
    kind: Any
    default: Any

    @property
    def name(self) -> str:
        """As in an error: `nats.url`."""
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def variable(self) -> str:
        """Its environment variable: `JOBSTATE_NATS__URL`."""
        return variable_of(self.name)

    @property
    def secret(self) -> bool:
        """Whether only the environment may say it."""
        return Secret in parts_of(self.kind)


def all_settings() -> Iterator[Setting]:
    """Every setting there is, in the order of the file."""
    for field in msgspec.structs.fields(Settings):
        if field.name == "warnings":
            continue
        if isinstance(field.type, type) and issubclass(field.type, Section):
            for inner in msgspec.structs.fields(field.type):
                yield Setting(field.name, inner.name, inner.type, inner.default)
        else:
            yield Setting("", field.name, field.type, field.default)


def variable_of(name: str) -> str:
    """The environment variable of the setting *name*: `JOBSTATE_NATS__URL` of `nats.url`."""
    return ENVIRONMENT + name.replace(".", "__").upper()


REMOVED: Final[Mapping[str, str]] = {
    "bacalhau.derive": "with an orchestrator nothing is published from a frame any more; remove the setting",
}
"""Settings that there were, and what became of them: found in a file or the environment they are told, and ignored."""


def describe(setting: Setting) -> str:
    """The sentence that says what the setting is for."""
    return next((meta.description for meta in _metas(setting.kind) if meta.description), "")


def bounds(setting: Setting) -> str:
    """What the value may be, shortly: `at least 1, at most 5`, or the words to choose from."""
    said = list(choices(setting.kind))
    for meta in _metas(setting.kind):
        said += [f"more than {meta.gt:_}"] if meta.gt is not None else []
        said += [f"at least {meta.ge:_}"] if meta.ge is not None else []
        said += [f"at most {meta.le:_}"] if meta.le is not None else []
    return ", ".join(said)


def choices(kind: object) -> tuple[str, ...]:
    """The words that a setting of this kind is chosen from, if it is."""
    found: list[str] = []
    for part in parts_of(kind):
        if getattr(part, "__origin__", None) is Literal:
            found += [str(word) for word in part.__args__]
    return tuple(found)


def parts_of(kind: Any) -> Iterator[Any]:
    """*kind* and everything that it is made of."""
    yield kind
    if getattr(kind, "__origin__", None) is not Literal:
        for inner in getattr(kind, "__args__", ()):
            yield from parts_of(inner)


def _metas(kind: object) -> Iterator[Meta]:
    for part in parts_of(kind):
        for note in getattr(part, "__metadata__", ()):
            if isinstance(note, Meta):
                yield note
