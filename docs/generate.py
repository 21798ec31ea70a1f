"""Write the generated files: README's tables of the rules, docs/reference/{cli,config,rules}.md, config/jobstate.toml.

`make docs` runs this. With --check it writes nothing, and exits 1 if a file is not as it would be written: tests ask
for the same.
"""

import inspect
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from consumer import rules, settings
from consumer.cli.shapes import LINES
from consumer.cli.verbs import VERBS, Verb
from consumer.rules import graph
from consumer.settings import Setting, Settings

ROOT: Final = Path(__file__).parents[1]
BEGIN: Final = "<!-- rules:begin -->"
END: Final = "<!-- rules:end -->"


def generated() -> dict[Path, str]:
    """Every generated file, and what it must hold."""
    files = {
        ROOT / "config/jobstate.toml": config_file(),
        ROOT / "docs/reference/cli.md": cli_page(),
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
        "Which state may follow which, within one version of a job. The data is `config/rules/bacalhau.toml`; "
        "`jobstate rules --explain FROM TO` answers for one transition.\n\n"
        f"{graph.grid(table)}\n\n{_paragraphs(graph.notes(table))}\n\n## Transitions\n\n{graph.transitions(table)}\n"
    )


SHARED_MIN: Final = 3
"""An option that this many verbs have, said in the same words, is explained once for all of them."""


def cli_page() -> str:
    """The reference of the command line: each verb with its arguments, its options and the lines of its `--json`."""
    commands = dict(_commands())
    rows = {name: _rows(name, command) for name, command in commands.items()}
    counted = Counter(row for of_verb in rows.values() for row in of_verb)
    shared = [row for row, count in counted.items() if count >= SHARED_MIN]
    lines = [
        "# Command line",
        "",
        "<!-- Written by `make docs`: do not edit. -->",
        "",
        "Every verb of `jobstate`, with its options and the JSON that it writes. `jobstate VERB --help` shows the same",
        "options. All verbs share their [exit codes](../operations/exit-codes.md).",
        "",
        *(["| verb | |", "| --- | --- |"]),
        *(f"| [`jobstate {name}`](#{_anchor(name)}) | {_summary(name, commands)} |" for name in rows),
        "",
        "## Options that verbs share",
        "",
        *_options(shared),
    ]
    for name, command in commands.items():
        lines += ["", *_verb(name, command, rows[name], shared)]
    return "\n".join(lines) + "\n"


def _commands() -> Iterator[tuple[str, Any]]:
    """Each verb by what is typed; one that only holds others is not there."""
    for name, (place, line) in VERBS.items():
        command = Verb(name, place, line).load()
        inner = getattr(command, "commands", None)
        yield from ((f"{name} {one}", verb) for one, verb in inner.items()) if inner else [(name, command)]


def _summary(name: str, commands: dict[str, Any]) -> str:
    """The line of `jobstate --help`; of a verb of a verb its own first sentence."""
    return VERBS[name][1] if name in VERBS else f"{inspect.cleandoc(commands[name].help).partition('.')[0]}."


def _context(name: str, command: Any) -> Any:
    return command.context_class(command, info_name=f"jobstate {name}", max_content_width=10_000)


def _rows(name: str, command: Any) -> list[tuple[str, str]]:
    """Arguments and options as `--help` has them."""
    records = [parameter.get_help_record(_context(name, command)) for parameter in command.params]
    return [(" ".join(row[0].split()), " ".join(row[1].split())) for row in records if row is not None]


def _verb(name: str, command: Any, rows: list[tuple[str, str]], shared: list[tuple[str, str]]) -> list[str]:
    usage = " ".join(piece for piece in command.collect_usage_pieces(_context(name, command)) if piece)
    lines = [f"## jobstate {name}", "", "```sh", f"jobstate {name} {usage}", "```"]
    for paragraph in inspect.cleandoc(command.help).split("\n\n"):
        text = " ".join(paragraph.split())
        example = text.removeprefix("Example: ")
        lines += ["", text] if example == text else ["", "Example:", "", "```sh", example, "```"]
    own = [row for row in rows if row not in shared]
    lines += ["", *_options(own)] if own else []
    if others := [f"`{row[0]}`" for row in rows if row in shared]:
        lines += ["", f"And {', '.join(others)}: [shared options](#options-that-verbs-share)."]
    for title, shape in LINES.get(name, {}).items():
        first = next(verb for verb, lines_of in LINES.items() if shape in lines_of.values())
        about = f"`--json`, {title}"
        if first != name:
            lines += ["", f"{about}: the same keys as `jobstate {first}` writes ([above](#{_anchor(first)}))."]
            continue
        lines += ["", f"{about}: {inspect.cleandoc(shape.__doc__)}" if shape.__doc__ else f"{about}:", ""]
        lines += ["| key | type | meaning |", "| --- | --- | --- |", *_keys(shape)]
    return lines


def _anchor(name: str) -> str:
    return f"jobstate-{name.replace(' ', '-')}"


def _options(rows: list[tuple[str, str]]) -> list[str]:
    return ["| | |", "| --- | --- |", *(f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _keys(shape: type, before: str = "") -> Iterator[str]:
    """A row for each key of a line, and for those of an object in it, `outer.inner` and `outer[].inner`."""
    bare = get_type_hints(shape)
    for name, hint in get_type_hints(shape, include_extras=True).items():
        annotated = hint if get_origin(hint) is Annotated else get_args(hint)[0]  # else NotRequired[Annotated[…]]
        yield f"| `{before}{name}` | {_type(bare[name])} | {annotated.__metadata__[0]} |"
        for inner in (bare[name], *get_args(bare[name])):
            if is_typeddict(inner):
                yield from _keys(inner, f"{before}{name}{'[]' if inner is not bare[name] else ''}.")


_TYPES: Final = {str: "string", int: "integer", float: "number", bool: "boolean", object: "any", type(None): "null"}


def _type(kind: Any) -> str:
    """How JSON calls it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return " or ".join(map(_type, inner))
    if origin is Literal:
        return " or ".join(f"`{str(one).lower() if one is True else one}`" for one in inner)
    if origin is list:
        return f"array of {_type(inner[0])}"
    if origin is tuple:
        return f"array of {len(inner)}"
    if origin is dict:
        return "object" if inner[1] is object else f"object of {_type(inner[1])}"
    return "object" if is_typeddict(kind) else _TYPES[kind]


def config_page() -> str:
    """The reference of the settings."""
    lines = [
        "# Settings",
        "",
        "<!-- Written by `make docs`: do not edit. -->",
        "",
        "A TOML file (`--config`, or `JOBSTATE_CONFIG`; `config/jobstate.toml` is a complete one) and, after it, the",
        "environment: `JOBSTATE_<SECTION>__<KEY>`. The daemon refuses a misspelt, malformed or out-of-range setting",
        "at the start, with file, key and reason. A secret is never in it: a `…_file` names the file that holds it, or",
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
