"""`completion`: a script that completes verbs, options and the words that some options take, in bash, zsh or fish.

The script is whole: it holds what can be completed, so that no key press waits for Python, and asks no server. Made
anew after an upgrade it knows the new verbs.
"""

import sys
from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple

import typer

from consumer.cli.parsing import OPEN, TERMINAL
from consumer.cli.verbs import VERBS, Verb
from consumer.errors import quoted
from consumer.rules import load

SHELLS: Final = ("bash", "zsh", "fish")


def _read_shell(text: str) -> str:
    if text not in SHELLS:
        raise typer.BadParameter(f"{quoted(text)} is no shell that we know: write {', '.join(SHELLS)}")
    return text


def completion(
    shell: Annotated[
        str, typer.Argument(metavar="bash|zsh|fish", parser=_read_shell, help="The shell that will run the script.")
    ],
) -> None:
    """Write a completion script: verbs, their options, states and files.

    bash: jobstate completion bash > ~/.local/share/bash-completion/completions/jobstate

    zsh: jobstate completion zsh > DIR/_jobstate, where DIR is in $fpath and compinit runs after that

    fish: jobstate completion fish > ~/.config/fish/completions/jobstate.fish

    Example: source <(jobstate completion bash)
    """
    verbs = list(_verbs())
    write = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    sys.stdout.write(write(verbs))


class _Option(NamedTuple):
    """An option of a verb: how it is spelled, what it does, and what it takes. *words* None: no value."""

    names: tuple[str, ...]
    line: str
    words: tuple[str, ...] | None
    is_file: bool


class _Verb(NamedTuple):
    """A verb as it is typed ("list", "quarantine show"), its line of help, the words that its arguments may be."""

    path: str
    line: str
    options: tuple[_Option, ...]
    words: tuple[str, ...]


def _verbs() -> Iterator[_Verb]:
    for name, (place, line) in VERBS.items():
        command = Verb(name, place, line).load()
        below: dict[str, Any] = getattr(command, "commands", {})
        yield _Verb(name, line, tuple(_options(command)), tuple(below) or _words_of(name))
        for under, inner in below.items():
            yield _Verb(f"{name} {under}", inner.get_short_help_str(60), tuple(_options(inner)), ())


def _words_of(verb: str) -> tuple[str, ...]:
    """List the words that the verb's arguments may be, where they are fixed words."""
    return {"completion": SHELLS, "send": load().states}.get(verb, ())


def _options(command: Any) -> Iterator[_Option]:
    states = load().states
    words = {
        "--state": (*states, OPEN, TERMINAL),
        "--for": (*states, TERMINAL),
        "--output": ("json", "text"),
        "--explain": states,
        "--since": ("now", "start"),
        "--type": load().job_types,
    }
    yield _Option(("-h", "--help"), "Show this message and exit.", None, is_file=False)
    for one in command.params:
        if one.param_type_name != "option" or "--help" in one.opts:
            continue
        names = tuple(one.opts)
        known = next((words[name] for name in names if name in words), ())
        is_file = (one.metavar or "") in {"FILE", "DIR", "PATH"}
        sentence = (one.help or "").partition(". ")[0].partition(": ")[0]
        yield _Option(names, sentence, None if one.is_flag else known, is_file)


def _bash(verbs: list[_Verb]) -> str:
    options = "".join(f'    "{one.path}") words="{" ".join((*one.words, *_spelled(one)))}" ;;\n' for one in verbs)
    values: dict[str, tuple[str, ...]] = {}
    files: set[str] = set()
    for option in (option for one in verbs for option in one.options if option.words is not None):
        for name in option.names:
            values[name] = option.words or ()
            files |= {name} if option.is_file else set()
    given = "".join(
        f'    {name}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")); return ;;\n'
        for name, words in values.items()
        if words
    )
    free = "|".join(name for name, words in values.items() if not words and name not in files)
    groups = "|".join(sorted({one.path.partition(" ")[0] for one in verbs if " " in one.path}))
    taking = "|".join(values)
    return f"""# bash completion for jobstate. Written by `jobstate completion bash`.
_jobstate() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD - 1]}}"
  local path="" words="" word skip="" index
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="${{COMP_WORDS[index]}}"
    if [ -n "$skip" ]; then skip=""; continue; fi
    case "$word" in
    {taking}) skip=1 ;;
    -*) ;;
    *)
      if [ -z "$path" ]; then path="$word"
      else case "$path" in {groups}) path="$path $word" ;; esac; fi ;;
    esac
  done
  case "$previous" in
{given}    {"|".join(sorted(files))}) COMPREPLY=($(compgen -f -- "$current")); return ;;
    {free}) return ;;
  esac
  case "$path" in
    "") words="{" ".join(VERBS)} -h --help --version" ;;
{options}  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _jobstate jobstate
"""


def _spelled(verb: _Verb) -> list[str]:
    return [name for option in verb.options for name in option.names]


def _plain(line: str) -> str:
    """A line of help within a shell's single quotes, and without what zsh would read."""
    return "".join(" " if char in "'[]:\\\n" else char for char in line).strip()


def _zsh(verbs: list[_Verb]) -> str:
    top = [one for one in verbs if " " not in one.path]
    described = " ".join(f"'{one.path}:{_plain(one.line)}'" for one in top)
    lines = ["#compdef jobstate", "# zsh completion for jobstate. Written by `jobstate completion zsh`."]
    for one in verbs:
        lines.append(f"_jobstate_{one.path.replace(' ', '_')}() {{")
        below = [verb for verb in verbs if verb.path.startswith(f"{one.path} ")]
        if below:
            cases = " ".join(f"{verb.path.split()[1]}) _jobstate_{verb.path.replace(' ', '_')} ;;" for verb in below)
            words = " ".join(f"'{verb.path.split()[1]}:{_plain(verb.line)}'" for verb in below)
            lines += [
                f"  local -a below=({words})",
                "  if (( CURRENT == 2 )); then _describe verb below; return; fi",
                "  shift words; (( CURRENT-- ))",
                f'  case "$words[1]" in {cases} esac',
            ]
        else:
            lines.append("  _arguments -S \\")
            lines += [f"    {spelled} \\" for option in one.options for spelled in _zsh_option(option)]
            rest = f"({' '.join(one.words)})" if one.words else "_files" if one.path == "replay" else "( )"
            lines.append(f"    '*:argument:{rest}'")
        lines.append("}")
    cases = " ".join(f"{one.path}) _jobstate_{one.path} ;;" for one in top)
    lines += [
        "_jobstate() {",
        f"  local -a verbs=({described})",
        "  if (( CURRENT == 2 )); then",
        "    _describe verb verbs",
        "    compadd -- -h --help --version",
        "    return",
        "  fi",
        "  shift words; (( CURRENT-- ))",
        f'  case "$words[1]" in {cases} esac',
        "}",
        'if [ "$funcstack[1]" = "_jobstate" ]; then _jobstate "$@"; else compdef _jobstate jobstate; fi',
    ]
    return "\n".join(lines) + "\n"


def _zsh_option(option: _Option) -> Iterator[str]:
    for name in option.names:
        value = ""
        if option.words is not None:
            what = f"({' '.join(option.words)})" if option.words else "_files" if option.is_file else "( )"
            value = f":{name.lstrip('-')}:{what}"
        yield f"'*{name}[{_plain(option.line)}]{value}'"


def _fish(verbs: list[_Verb]) -> str:
    tops = " ".join(VERBS)
    bare = f"complete -c jobstate -n 'not __fish_seen_subcommand_from {tops}'"
    lines = [
        "# fish completion for jobstate. Written by `jobstate completion fish`.",
        "complete -c jobstate -f",
        f"{bare} -s h -l help -d 'Show this message and exit'",
        f"{bare} -l version -d 'Show our version and exit'",
    ]
    for one in verbs:
        above, _, below = one.path.partition(" ")
        if below:
            when = f"__fish_seen_subcommand_from {above}; and __fish_seen_subcommand_from {below}"
            first = f"__fish_seen_subcommand_from {above}; and not __fish_seen_subcommand_from {below}"
            lines.append(f"complete -c jobstate -n '{first}' -a {below} -d '{_plain(one.line)}'")
        else:
            when = f"__fish_seen_subcommand_from {above}"
            first = f"not __fish_seen_subcommand_from {tops}"
            lines.append(f"complete -c jobstate -n '{first}' -a {above} -d '{_plain(one.line)}'")
            if one.words and not any(verb.path.startswith(f"{above} ") for verb in verbs):
                lines.append(f"complete -c jobstate -n '{when}' -a '{' '.join(one.words)}'")
        for option in one.options:
            spelled = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = "" if option.words is None else f" -r -a '{' '.join(option.words)}'" if option.words else " -r"
            value += " -F" if option.is_file else ""
            lines.append(f"complete -c jobstate -n '{when}' {spelled}{value} -d '{_plain(option.line)}'")
    return "\n".join(lines) + "\n"
