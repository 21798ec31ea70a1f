"""Writes what is generated: README's tables of the rules, docs/reference/config.md, config/jobstate.toml. `make docs`.

With --check nothing is written; the exit code is 1 if something is not as it would be written. Tests ask the same.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from consumer import rules, settings
from consumer.rules import graph
from consumer.settings import Setting, Settings

ROOT: Final = Path(__file__).parents[1]
BEGIN: Final = "<!-- rules:begin -->"
END: Final = "<!-- rules:end -->"


def generated() -> dict[Path, str]:
    """Every generated file, and what it must hold."""
    files = {
        ROOT / "config/jobstate.toml": config_file(),
        ROOT / "docs/reference/config.md": config_page(),
        ROOT / "docs/reference/rules.md": rules_page(),
    }
    readme = ROOT / "README.md"
    if readme.exists():
        files[readme] = with_rules(readme.read_text(encoding="utf-8"))
    return files


def with_rules(readme: str) -> str:
    """*readme* with the present rules between its two markers. Raises `ValueError` if they are not there."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks {BEGIN} and {END}")
    table = rules.load()
    return (
        f"{before}{BEGIN}\n<!-- Written by `make docs`: do not edit. -->\n\n```mermaid\n{graph.mermaid(table)}\n```\n\n"
        f"{graph.grid(table)}\n\n{_paragraphs(graph.notes(table))}\n\n{END}{after}"
    )


def rules_page() -> str:
    """The reference of the rules: each transition with its source."""
    table = rules.load()
    return (
        "# Rules\n\n<!-- Written by `make docs`: do not edit. -->\n\n"
        "What may follow what, within one version of a job. The data is `config/rules/bacalhau.toml`; "
        "`jobstate rules --explain FROM TO` answers for one transition.\n\n"
        f"{graph.grid(table)}\n\n{_paragraphs(graph.notes(table))}\n\n## Transitions\n\n{graph.transitions(table)}\n"
    )


def config_page() -> str:
    """The reference of the settings."""
    lines = [
        "# Settings",
        "",
        "<!-- Written by `make docs`: do not edit. -->",
        "",
        "A TOML file (`--config`, or `JOBSTATE_CONFIG`; `config/jobstate.toml` is a complete one) and, after it, the",
        "environment: `JOBSTATE_<SECTION>__<KEY>`. What is misspelt, of the wrong kind or out of range is refused at",
        "the start with file, key and reason. A secret is never in it: a `…_file` names the file that holds it, or",
        "its own variable does.",
    ]
    for section, members in _sections():
        lines += ["", f"## {f'[{section}]' if section else 'Top level'}", ""]
        lines += [_about(section), ""] if section else []
        lines += ["| key | default | may be | meaning | variable |", "| --- | --- | --- | --- | --- |"]
        lines += [
            f"| `{one.key}` | {'' if one.secret else f'`{_toml(one.default)}`'} | {_kind(one)} "
            f"| {settings.describe(one)} | `{one.variable}` |"
            for one in members
        ]
    return "\n".join(lines) + "\n"


def config_file() -> str:
    """A configuration file that says every default, with its meaning."""
    lines = [
        "# Every setting of jobstate, with its default. Written by `make docs`; copy it, and keep what you change.",
        "# The environment comes after this file: [nats] url is also JOBSTATE_NATS__URL.",
    ]
    for section, members in _sections():
        lines += ["", f"# {_about(section)}", f"[{section}]"] if section else [""]
        for one in members:
            if one.secret:
                lines += [f"# {settings.describe(one)} Only as {one.variable}, never in this file."]
                continue
            may_be = f" ({settings.bounds(one)})" if settings.bounds(one) else ""
            lines += [f"# {settings.describe(one)}{may_be}", f"{one.key} = {_toml(one.default)}"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write everything, or with --check say what differs."""
    stale = {path: text for path, text in generated().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        print(f"{'differs' if '--check' in sys.argv else 'written'}: {path.relative_to(ROOT)}")
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(bool(stale) and "--check" in sys.argv)


def _sections() -> Iterator[tuple[str, list[Setting]]]:
    by_section: dict[str, list[Setting]] = {}
    for one in settings.all_settings():
        by_section.setdefault(one.section, []).append(one)
    yield from by_section.items()


def _about(section: str) -> str:
    kinds = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    return str(kinds[section].__doc__)


def _kind(one: Setting) -> str:
    if one.secret:
        return "a secret, only as its variable"
    name = {bool: "true or false", int: "an integer", float: "a number", str: "text"}[type(one.default)]
    bounds = settings.bounds(one)
    return bounds if settings.choices(one.kind) else f"{name}, {bounds}" if bounds else name


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return f"{value:_}"
        case float():
            return repr(value)
        case _:
            return f'"{value}"'


def _paragraphs(lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines.splitlines())


if __name__ == "__main__":
    sys.exit(main())
