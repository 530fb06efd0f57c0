"""``app-net completion SHELL``: what a shell runs to complete the words of a command."""
from __future__ import annotations

import argparse
import os
import re
from functools import partial
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from ..errors import NetError, printable
from .choosing import names_at, one_of_each, peers_of, search
from .screen import Failed, Screen, Usage
from .words import MORE

BASH = """\
_app_net() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(app-net completion line -- \\
        "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" \\
        2>/dev/null)
    if [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == */ ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F _app_net app-net
"""

ZSH = """\
#compdef app-net
_app_net() {
    local -a given found
    given=("${(@Q)words[2,CURRENT-1]}")
    found=("${(@f)$(app-net completion words \\
        -- "${given[@]}" "${(Q)PREFIX}" 2>/dev/null)}")
    found=("${(@)found:#}")
    compadd -- "${(@)found:#*/}"
    compadd -S '' -- "${(@M)found:#*/}"
}
compdef _app_net app-net
"""

FISH = """\
function __app_net_words
    set -l given (commandline -opc)
    set -l begun (commandline -ct |
        string replace -ra '[\\'"\\\\\\\\]' '')
    app-net completion words \\
        -- $given[2..-1] "$begun" 2>/dev/null
end
complete -c app-net -f -a '(__app_net_words)'
"""

SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

#: Option -> what its value is, where that is known.
VALUES = {"--group": "group"}
#: Options that may stand before the command, and whether a value follows.
FIRST = {"--json": False, "--timeout": True}

# What a shell understands as it is.
_PLAIN = re.compile(r"[\w./:@%+,=-]")


class Completion:
    """print what makes bash, zsh or fish complete the words of app-net"""

    json = timeout = None  # what it prints is for a shell, and it calls nobody
    takes = ("shell",)
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
            screen.put(SHELLS[options.shell].rstrip("\n"))
            return 0
        if options.shell == "line":
            found = cls.line(*options.word[:2])
        else:
            found = cls.words(options.word or [""])
        for word in found:
            screen.put(printable(word))
        return 0

    @classmethod
    def line(cls, line: str, breaks: str = "") -> List[str]:
        """What bash puts in place of the end of a line.

        :param breaks: letters at which it takes words apart: only what is behind the last of them
            is replaced.
        """
        line_words = split(line)
        last = line_words[-1]
        quoted: Callable[[str], str]
        if last.quote:
            kept, quoted = last.text[:last.quoted_from], partial(_within, last.quote)
        else:
            kept = last.text[:1 + max([place for place in last.bare
                                       if last.text[place] in breaks], default=-1)]
            quoted = _escaped
        return [quoted(word[len(kept):])
                for word in cls.words([word.text for word in line_words[1:]] or [""])]

    @classmethod
    def words(cls, given: List[str]) -> List[str]:
        """The words that the last of the given ones can become."""
        *before, begun = given
        first = _without_options(before, FIRST)
        if first is None:
            return []  # it is the value of an option
        if not first:
            found = [*cls.commands, *FIRST, "--version", "--help"]
        elif first[0] not in cls.commands:
            return []
        else:
            found = cls._words_of(first[0], before, begun)
        return sorted({word for word in found if word.startswith(begun)})

    @classmethod
    def _words_of(cls, command: str, before: List[str], begun: str) -> List[str]:
        """What can come next in the words of a command."""
        actions = [action for action in cls.parser(command, cls.commands[command])._actions
                   if action.help != argparse.SUPPRESS]
        options = {option: action.nargs != 0 for action in actions
                   for option in action.option_strings}
        words = _without_options(before, {**FIRST, **options})
        if words is None:
            return _known(VALUES.get(before[-1], ""), [], begun)
        name, equals, value = begun.partition("=")
        if equals and name in options:
            return [f"{name}={word}" for word in _known(VALUES.get(name, ""), [], value)]
        if begun.startswith("-") and "--" not in before:
            return list(options)
        kinds = getattr(cls.commands[command], "takes", ())
        if kinds[-1:] == (MORE,):
            kinds = kinds[:-1] + kinds[-2:-1] * len(words)
        return _known(kinds[len(words) - 1] if len(words) <= len(kinds) else "", words, begun)


def _without_options(words: List[str], takes: Dict[str, bool]) -> Optional[List[str]]:
    """Words without options and their values; None if a value would come next.

    :param takes: option -> whether its value is the word behind it.
    """
    found: List[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if word == "--":
            return found + words[place:]
        if not word.startswith("-") or word == "-":
            found.append(word)
        elif takes.get(word):
            place += 1
    return None if place > len(words) else found


def _known(kind: str, words: List[str], begun: str) -> List[str]:
    """What there is of a kind: on the network, or on this host.

    :param words: the command, and those of its words that come before.
    """
    if kind == "shell":
        return list(SHELLS)
    if kind == "file":
        return _files(begun)
    try:
        if kind == "peer":
            peers = search()
            return ["any", "all", *map(str, peers),
                    *(str(peer.info["label"]) for peer in peers if peer.info.get("label"))]
        if kind == "function":
            return [name for peer in one_of_each(peers_of(
                "all" if words[1] == "any" else words[1])) for name in names_at(peer)]
        if kind == "group":
            return [str(peer.group) for peer in search() if peer.group]
    except (NetError, Failed, Usage):
        pass
    return []


def _files(begun: str) -> List[str]:
    """Python files, modules of the folder that this was started in, and folders."""
    folder, name = os.path.split(begun)
    found: List[str] = []
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            for entry in entries:
                place = os.path.join(folder, entry.name)
                if entry.name.startswith(".") and not name.startswith("."):
                    continue
                if entry.is_dir():
                    found.append(place + "/")
                elif entry.name.endswith(".py"):
                    found += [place] if folder else [place, place[:-len(".py")]]
    except OSError:
        pass
    return found


# ---------------------------------------------------------------- the line of bash


class Word(NamedTuple):
    """A word of a line.

    :ivar bare: the places of those of its letters that are not in quotes.
    :ivar quote: the quote that is open at its end; empty for none.
    :ivar quoted_from: the place where that begins.
    """

    text: str
    bare: List[int]
    quote: str
    quoted_from: int


def split(line: str) -> List[Word]:
    """The words of a line as bash takes them; the last one is what is being written, and may be
    empty."""
    found: List[Word] = []
    bare: List[int] = []
    text, quote, since, begun, place = "", "", 0, False, 0
    while place < len(line):
        letter = line[place]
        place += 1
        if not quote and letter in " \t":
            if begun:
                found.append(Word(text, bare, "", 0))
            text, bare, begun = "", [], False
            continue
        begun = True
        if letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote, since = letter, len(text)
        elif letter == "\\" and quote != "'" \
                and (not quote or line[place:place + 1] in tuple('"\\$`')):
            text += line[place:place + 1]
            place += 1
        else:
            if not quote:
                bare.append(len(text))
            text += letter
    return [*found, Word(text, bare, quote, since)]


def _escaped(text: str) -> str:
    return "".join(letter if _PLAIN.fullmatch(letter) else "\\" + letter for letter in text)


def _within(quote: str, text: str) -> str:
    """Text within quotes, without those around it."""
    if quote == "'":
        return text.replace("'", "'\\''")
    return re.sub(r'(["\\$`])', r"\\\1", text)
