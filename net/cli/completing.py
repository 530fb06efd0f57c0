"""``app-net completion SHELL``: what a shell runs to complete the words of a command."""
from __future__ import annotations

import argparse
from typing import Any, Callable, Dict, List

from ..errors import NetError, printable
from .choosing import names_at, peers_of, search
from .screen import Failed, Screen, Usage

BASH = """\
_app_net() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$(printf '%q' "$line")")
    done < <(app-net completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if declare -F __ltrim_colon_completions >/dev/null; then
        __ltrim_colon_completions "${COMP_WORDS[COMP_CWORD]}"
    fi
}
complete -o default -F _app_net app-net
"""

ZSH = """\
#compdef app-net
_app_net() {
    local -a found
    found=("${(@f)$(app-net completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    [[ -n "${found[1]}" ]] && compadd -- "${found[@]}"
}
compdef _app_net app-net
"""

FISH = """\
function __app_net_words
    set -l words (commandline -opc) (commandline -ct)
    app-net completion words -- $words[2..-1] 2>/dev/null
end
complete -c app-net -f -a '(__app_net_words)'
"""

SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

#: Command -> what its words are, one after the other.
WORDS = {
    "call": ("peer", "function"), "functions": ("peer", "function"), "ping": ("peer",),
    "stats": ("peer",), "top": ("peer",), "doctor": ("peer",), "metrics": ("peer",),
    "listen": ("", "peer"), "peers": ("group",), "completion": ("shell",),
}


class Completion:
    """print what makes bash, zsh or fish complete the words of app-net"""

    has_json = False
    more = """\
  bash   source <(app-net completion bash)             in ~/.bashrc
  zsh    source <(app-net completion zsh)              in ~/.zshrc, after compinit
  fish   app-net completion fish | source              in ~/.config/fish/config.fish"""

    #: The commands, and what makes the parser of one; set by the program.
    commands: Dict[str, Any] = {}
    parser: Callable[[str, Any], argparse.ArgumentParser]

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("shell", choices=list(SHELLS), metavar="SHELL",
                            help="bash, zsh or fish")

    @classmethod
    def run(cls, options: argparse.Namespace, screen: Screen) -> int:
        if options.shell in SHELLS:
            screen.write(SHELLS[options.shell].rstrip("\n"))
            return 0
        for word in cls.words(options.word or [""]):
            screen.write(printable(word))
        return 0

    @classmethod
    def words(cls, given: List[str]) -> List[str]:
        """The words that the last of those that are given can become."""
        *before, begun = given
        before = [word for word in before if not word.startswith("-")]
        if not before:
            found = [*cls.commands, "--json", "--timeout", "--version", "--help"]
        elif begun.startswith("-") and before[0] in cls.commands:
            parser = cls.parser(before[0], cls.commands[before[0]])
            found = [option for action in parser._actions if action.help != argparse.SUPPRESS
                     for option in action.option_strings]
        else:
            found = _known(before)
        return sorted({word for word in found if word.startswith(begun)})


def _known(before: List[str]) -> List[str]:
    """What is on the network that may follow these words."""
    kinds = WORDS.get(before[0], ())
    kind = kinds[min(len(before), len(kinds)) - 1] if kinds and len(before) <= len(kinds) else ""
    try:
        if kind == "peer":
            peers = search()
            return ["any", "all", *map(str, peers),
                    *(str(peer.info["label"]) for peer in peers if peer.info.get("label"))]
        if kind == "function":
            return [name for peer in peers_of(before[1])[:1] for name in names_at(peer)]
        if kind == "group":
            return [str(peer.group) for peer in search() if peer.group]
    except (NetError, Failed, Usage):
        return []
    return list(SHELLS) if kind == "shell" else []
