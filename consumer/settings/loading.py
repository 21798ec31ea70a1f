"""Loading: `load` makes `Settings` of a file, the environment and the command line; refused is what is not clear."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from consumer.errors import SettingsError, quoted
from consumer.settings.catalog import REMOVED, Setting, all_settings, bounds, describe, variable_of
from consumer.settings.schema import Settings
from consumer.settings.secrets import ENVIRONMENT, Secret, is_one_word
from consumer.settings.together import check_hosts, check_together, look_at_files

CONFIG: Final = "JOBSTATE_CONFIG"
"""The variable that names the file; the command line's `--config` comes first."""

_ALONE: Final = ("CLUSTER", "CONFIG")
"""The variables of no section, without what all begin with."""

RULES_FILE: Final = "rules.file (JOBSTATE_RULES__FILE)"
"""What names the rules file, for an error about that file."""

UNKNOWN_MAX: Final = 8
"""Unknown names of one file that are told at once: a file with more is not one of ours."""

_PATHS: Final = ("file", "tls_ca", "folder")
"""How the keys end whose values are names of files: those may be any bytes."""


class Given(NamedTuple):
    """What the command line says: its option, the setting that it is, and the text."""

    option: str
    name: str
    text: str


def load(path: Path | None = None, environ: Mapping[str, str] | None = None, given: Sequence[Given] = ()) -> Settings:
    """The settings of the file at *path* (None: defaults), after it of *environ* (None: nothing), after that *given*.

    Raises `SettingsError`: names the file, variable or option, the key, the reason and, of a misspelt one, the nearest
    name.
    """
    known = {setting.name: setting for setting in all_settings()}
    values = {} if path is None else _from_file(path)
    origins = dict.fromkeys(values, str(path))
    overruled = {known[name].variable for _, name, _ in given}  # what a flag comes before need not be right
    left = {variable: text for variable, text in (environ or {}).items() if variable not in overruled}
    for name, value in _from_environment(left).items():
        values[name], origins[name] = value, f"environment: {variable_of(name)}"
    for option, name, text in given:
        values[name], origins[name] = _convert(option, known[name], text, lax=True), option

    removed = [f"{origins[name]}: {name}: {REMOVED[name]}" for name in REMOVED if name in values]
    sections: dict[str, dict[str, Any]] = {}
    for setting in all_settings():
        if setting.section and setting.name in values:
            sections.setdefault(setting.section, {})[setting.key] = values[setting.name]
    made = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    chosen: dict[str, Any] = {name: made[name](**given) for name, given in sections.items()}
    if "cluster" in values:
        chosen["cluster"] = values["cluster"]
    settings = Settings(**chosen)
    check_together(settings, origins)
    check_hosts(settings, origins)
    return msgspec.structs.replace(settings, warnings=(*removed, *look_at_files(settings, origins)))


def utf8_of(text: str) -> str:
    """*text* of a variable or an argument, whose bytes are UTF-8 whatever the locale is. Raises `UnicodeError` if not.

    Python reads it in the locale's encoding; what that cannot read comes as lone surrogates.
    """
    try:
        text.encode()
    except UnicodeError:
        return os.fsencode(text).decode()
    return text


def _from_file(path: Path) -> dict[str, Any]:
    """The values of the file by their names, each of its kind; those of `REMOVED` as they stand there."""
    table = _parse(path)
    known = {setting.name: setting for setting in all_settings()}
    sections = {setting.section for setting in known.values() if setting.section}
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in table.items():
        if name in sections and not isinstance(value, dict):
            raise SettingsError(f"{path}: {name}: is a section; write [{name}] and its keys below")
        if name not in sections and isinstance(value, dict):
            unknown.append(f"unknown section [{name}]{_nearest(name, sections)}")
            continue
        section, table_of = (name, value) if name in sections else ("", {name: value})
        for key, given in table_of.items():
            full = f"{section}.{key}" if section else key
            if full in REMOVED:
                values[full] = given
                continue
            if full not in known:
                unknown.append(f"unknown key `{key}`{f' in [{section}]' if section else ''}{_meant(key, section)}")
                continue
            if known[full].secret:
                raise SettingsError(
                    f"{path}: {full}: a secret does not belong into this file; "
                    f"give it as {known[full].variable}, or name the file that holds it: {full}_file"
                )
            values[full] = _convert(str(path), known[full], given)
    if unknown:
        more = f"; and {len(unknown) - UNKNOWN_MAX} more" if len(unknown) > UNKNOWN_MAX else ""
        raise SettingsError(f"{path}: {'; '.join(unknown[:UNKNOWN_MAX])}{more}")
    return values


def _parse(path: Path) -> dict[str, Any]:
    """The tables of the file. A byte-order mark and either kind of line ends are no part of it."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); name another file with --config") from error
    except UnicodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from error


def check_names(environ: Mapping[str, str]) -> None:
    """Refuse a variable that is almost one of ours. Raises `SettingsError`; no value is looked at.

    Kubernetes sets variables like `JOBSTATE_PORT_9090_TCP` for a service of our name: those are not ours and no error.
    """
    known = {setting.variable for setting in all_settings()} | set(map(variable_of, REMOVED))
    flat = {re.sub("_+", "_", variable): variable for variable in known}
    for variable in environ:
        if not variable.startswith(ENVIRONMENT) or variable == CONFIG or variable in known:
            continue
        where = f"environment: {variable}"
        if (meant := flat.get(re.sub("_+", "_", variable))) is not None:
            raise SettingsError(f"{where}: unknown; did you mean {meant} (two underscores)?")
        if "__" in variable:
            raise SettingsError(f"{where}: unknown{_meant_by(variable)}")
        if near := difflib.get_close_matches(variable.removeprefix(ENVIRONMENT), _ALONE, n=1, cutoff=0.8):
            raise SettingsError(f"{where}: unknown; did you mean {ENVIRONMENT}{near[0]}?")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The values of the variables that are ours by their names, each of its kind."""
    check_names(environ)
    known = {setting.variable: setting for setting in all_settings()}
    removed: dict[str, Any] = {name: None for name in REMOVED if variable_of(name) in environ}
    return removed | {
        known[variable].name: _convert(f"environment: {variable}", known[variable], text, lax=True)
        for variable, text in environ.items()
        if variable in known
    }


def _convert(where: str, setting: Setting, value: object, *, lax: bool = False) -> Any:
    """*value* as the setting's kind. *lax*: it is the text of a variable, so "5" may be a number."""
    if isinstance(value, str) and setting.key.endswith(_PATHS):
        if "\0" in value:
            raise SettingsError(f"{where}: {setting.name}: holds a NUL character, which no name of a file can")
    elif isinstance(value, str):
        try:
            value = utf8_of(value)
        except UnicodeError:
            raise SettingsError(f"{where}: {setting.name}: is not UTF-8 text{_shown(setting, value)}") from None
    try:
        return msgspec.convert(value, setting.kind, strict=not lax, dec_hook=partial(_secret, setting.key))
    except msgspec.ValidationError as error:
        reason = _reason(error, setting, value)
        raise SettingsError(f"{where}: {setting.name}: {reason}{_shown(setting, value)}") from error


def _secret(key: str, kind: type, value: object) -> Secret:
    """The only kind of a setting that msgspec does not know by itself."""
    assert kind is Secret
    text = str(value).strip()
    if not is_one_word(text) and key != "password":
        raise ValueError("holds a blank or more than one line; it must hold the secret alone")
    return Secret(text)


_URL_STEP: Final = (
    "a port is at most 65535, and in a user or password each of `/ # ? @ : [ ]` and each blank is percent-encoded "
    "(`/` is %2F), or the password stands in a file of its own; an IPv6 address stands in brackets, without a zone"
)


_OF_NATS: Final = ("nats", "tls", "ws", "wss")
_SCHEMES: Final = {"nats": _OF_NATS, "bacalhau": _OF_NATS, "orchestrator": ("http", "https")}
"""Those that the `url` of each section may have."""

_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://")
"""At the beginning alone: what stands after a comma may be part of a password, and is not shown."""


def _wrong_scheme(setting: Setting, value: object) -> str:
    """What is wrong with the scheme that an address begins with; empty where it is not the scheme."""
    known = _SCHEMES[setting.section]
    found = _SCHEME.match(str(value))
    if found is None or found[1] in known:
        return ""
    return f"its scheme is {', '.join(known[:-1])} or {known[-1]}, not {found[1]}"


def _reason(error: msgspec.ValidationError, setting: Setting, value: object) -> str:
    """What is wrong, in words of the setting rather than of the pattern."""
    text = str(error)
    if "matching regex" in text:
        what = f"is not what it must be: {describe(setting).removesuffix('.')}"
        return f"{what}; {_wrong_scheme(setting, value) or _URL_STEP}" if setting.key == "url" else what
    if text.startswith("Invalid enum value"):
        return f"is not what it must be: {bounds(setting)}"
    return f"{text[0].lower()}{text[1:]}"


def _shown(setting: Setting, value: object) -> str:
    """What was given, fit to be shown; nothing where it is, or may hold, a secret."""
    secret = (
        setting.secret
        or setting.key.endswith("_file")
        or (setting.key == "url" and not {"@", "?"}.isdisjoint(str(value)))
    )
    return "" if secret or not isinstance(value, str | int | float) else f" (given: {quoted(str(value))})"


def _meant(key: str, section: str) -> str:
    """What a misspelt *key* of *section* may have been: the same key elsewhere, or the nearest one here."""
    elsewhere = [setting.name for setting in all_settings() if setting.key == key]
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    return _nearest(key, {setting.key for setting in all_settings() if setting.section == section})


def _meant_by(variable: str) -> str:
    """What a misspelt *variable* may have been: section and key each by itself (all share the rest)."""
    section, _, key = variable.removeprefix(ENVIRONMENT).lower().partition("__")
    settings = [setting for setting in all_settings() if setting.section]
    section = _near(section, {setting.section for setting in settings})
    key = _near(key, {setting.key for setting in settings if setting.section == section})
    return next((f"; did you mean {one.variable}?" for one in settings if (one.section, one.key) == (section, key)), "")


def _nearest(word: str, among: Iterable[str]) -> str:
    """`; did you mean …?`, or nothing where nothing is near."""
    near = _near(word, among)
    return f"; did you mean {near}?" if near else ""


def _near(word: str, among: Iterable[str]) -> str:
    """The nearest of *among*; empty where none is near: a far guess sends whoever reads it astray."""
    return next(iter(difflib.get_close_matches(word, sorted(among), n=1, cutoff=0.66)), "")
