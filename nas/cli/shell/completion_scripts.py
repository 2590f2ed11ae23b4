"""Completion scripts for bash, zsh and fish, from what may follow each word."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from nas.cli.shell.completion_commands import Argument, Command


def render_bash(found: Sequence[Command]) -> str:
    """For ``eval "$(nas completion bash)"`` or a file in bash's completion folder."""
    return f"""# Completes nas in bash; made by: nas completion bash
_nas_words() {{ mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }}
_nas_files() {{
    local found
    mapfile -t found < <(compgen -f -- "$cur")
    COMPREPLY+=("${{found[@]}}")
    compopt -o filenames 2>/dev/null
}}
_nas() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD - 1]}}" at="" i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at ${{COMP_WORDS[i]}}" in
            {_steps(found)}) at="${{at:+$at }}${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$at $prev" in
{_lines(_bash_values(found))}
    esac
    case "$at" in
{_lines(_bash_commands(found))}
    esac
}}
complete -F _nas nas
"""


def render_zsh(found: Sequence[Command]) -> str:
    """For a file called ``_nas`` in a folder of ``$fpath``."""
    # The name path is taken: zsh ties it to $PATH.
    return f"""#compdef nas
# Completes nas in zsh; made by: nas completion zsh
_nas() {{
    local prev="${{words[CURRENT-1]}}" at="" i
    local -a offered
    for ((i = 2; i < CURRENT; i++)); do
        case "$at ${{words[i]}}" in
            ({_steps(found)}) at="${{at:+$at }}${{words[i]}}" ;;
        esac
    done
    case "$at $prev" in
{_lines(_zsh_values(found))}
    esac
    case "$at" in
{_lines(_zsh_commands(found))}
    esac
}}
if [[ "$funcstack[1]" = "_nas" ]]; then _nas "$@"; else compdef _nas nas; fi
"""


def render_fish(found: Sequence[Command]) -> str:
    """For ``~/.config/fish/completions/nas.fish``."""
    steps = " ".join(shlex.quote(step) for step in _step_list(found))
    return f"""# Completes nas in fish; made by: nas completion fish
function __nas_at
    set -l at ""
    for word in (commandline -opc)[2..-1]
        switch "$at $word"
            case {steps}
                set at (string trim "$at $word")
        end
    end
    test "$at" = "$argv[1]"
end
complete -c nas -f
{_lines(_fish_lines(found), indent="")}
"""


RENDER: Mapping[str, Callable[[Sequence[Command]], str]] = MappingProxyType(
    {"bash": render_bash, "zsh": render_zsh, "fish": render_fish}
)


def _step_list(found: Sequence[Command]) -> list[str]:
    """How a command's words go on: `` search`` from nothing, ``predictor fit`` from a verb."""
    return [f"{c.words} {name}" for c in found for name, _ in c.below]


def _steps(found: Sequence[Command]) -> str:
    return "|".join(f'"{step}"' for step in _step_list(found))


def _after(command: Command, option: Argument) -> str:
    """What the words so far and the last one look like, where a value of ``option`` is next."""
    return "|".join(f'"{command.words} {name}"' for name in option.names)


def _bash_values(found: Sequence[Command]) -> Iterator[str]:
    for command in found:
        for option in (o for o in command.options if o.takes_value):
            yield f"    {_after(command, option)}) {_bash_offer(option)}return ;;"


def _bash_offer(argument: Argument) -> str:
    words = f"_nas_words {shlex.quote(' '.join(argument.words))}; " if argument.words else ""
    return words + ("_nas_files; " if argument.files else "")


def _bash_commands(found: Sequence[Command]) -> Iterator[str]:
    for command in found:
        names = " ".join(name for option in command.options for name in option.names)
        if command.below:
            rest = f"_nas_words {shlex.quote(' '.join(name for name, _ in command.below))}"
        else:
            words = [word for p in command.positionals for word in p.words]
            files = any(p.files for p in command.positionals)
            rest = _bash_offer(Argument((), "", True, tuple(words), files)).rstrip("; ") or ":"
        yield f'    "{command.words}")'
        yield f"        if [[ $cur == -* ]]; then _nas_words {shlex.quote(names)}; else {rest}; fi"
        yield "        ;;"


def _zsh_values(found: Sequence[Command]) -> Iterator[str]:
    for command in found:
        for option in (o for o in command.options if o.takes_value):
            yield f"    ({_after(command, option)}) {_zsh_offer(option)}return ;;"


def _zsh_offer(argument: Argument) -> str:
    words = f"compadd -- {shlex.join(argument.words)}; " if argument.words else ""
    return words + ("_files; " if argument.files else "")


def _zsh_commands(found: Sequence[Command]) -> Iterator[str]:
    for command in found:
        options = [(name, o.help) for o in command.options for name in o.names]
        yield f'    ("{command.words}")'
        yield f"        offered=({_described(options)})"
        yield '        if [[ "$PREFIX" == -* ]]; then _describe -o option offered; return; fi'
        if command.below:
            yield f"        offered=({_described(command.below)})"
            yield "        _describe command offered"
        for positional in command.positionals:
            yield f"        {_zsh_offer(positional)}".rstrip("; ")
        yield "        ;;"


def _described(pairs: Sequence[tuple[str, str]]) -> str:
    # A colon ends the name; none of ours has one.
    return " ".join(shlex.quote(f"{name}:{text}") for name, text in pairs)


def _fish_lines(found: Sequence[Command]) -> Iterator[str]:
    for command in found:
        start = f"complete -c nas -n {shlex.quote(f'__nas_at {shlex.quote(command.words)}')}"
        for name, text in command.below:
            yield f"{start} -a {name} -d {_fish_quote(text)}"
        for option in command.options:
            names = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in option.names
            )
            yield f"{start} {names}{_fish_offer(option)} -d {_fish_quote(option.help)}"
        for positional in command.positionals:
            if positional.words or positional.files:
                yield f"{start}{_fish_offer(positional).replace(' -r', '').replace(' -x', '')}"


def _fish_offer(argument: Argument) -> str:
    if not argument.takes_value:
        return ""
    words = f" -a {_fish_quote(' '.join(argument.words))}" if argument.words else ""
    # -x wants a value that is no file: with -r alone, fish offers files as well.
    return (" -r -F" if argument.files else " -x") + words


def _fish_quote(text: str) -> str:
    # In single quotes fish knows two escapes, unlike other shells, which know none.
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _lines(lines: Iterator[str], indent: str = "    ") -> str:
    return "\n".join(indent + line if indent else line.lstrip() for line in lines)
