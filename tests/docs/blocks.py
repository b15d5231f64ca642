"""The code blocks of tutorial and how-to, as the Markdown has them, and a run of one page's commands.

A comment before a block, or anywhere in the page, tells what to do with it:
`<!-- prepared: STATE -->` in which state the page begins: `nothing` (by default), `products` or `enriched`;
`<!-- not run: REASON -->` the next block needs what a test machine lacks; a parser checks it all the same;
`<!-- prints -->` each line of the next block is printed by the commands before it.
In README.md only blocks after `<!-- run -->` are run.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from markdown_it import MarkdownIt

from bridge.cli import cli

README = Path(__file__).parents[2] / "README.md"
DOCS = README.parent / "docs"
PAGES = sorted([*(DOCS / "tutorial").glob("*.md"), *(DOCS / "how-to").glob("*.md")])
_COMMENT = re.compile(r"<!-- (?P<word>prepared|not run|prints)(?:: (?P<value>[\w-]+))? -->")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `not_run`: the reason; `is_output`: the commands before it print these lines."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None = None
    is_output: bool = False

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return list(_blocks(page.read_text(encoding="utf-8"), page.relative_to(DOCS).as_posix()))


def _blocks(text: str, name: str) -> Iterator[Block]:
    marks: dict[str, str] = {}
    for token in MarkdownIt().parse(text):
        if token.type == "html_block" and (found := _COMMENT.search(token.content)):
            marks[found["word"]] = found["value"] or ""
        elif token.type == "fence":
            line = token.map[0] + 1 if token.map else 0
            language = token.info.split()[0] if token.info else ""
            yield Block(name, line, language, token.content, marks.pop("not run", None), "prints" in marks)
            marks.pop("prints", None)


def prepared(page: Path) -> str:
    """In which state a page begins."""
    found = re.search(r"<!-- prepared: (\w+) -->", page.read_text(encoding="utf-8"))
    return found[1] if found else "nothing"


def script(page: Path) -> str:
    """All commands of a page that are run, as one script."""
    return "\n".join(block.text for block in blocks(page) if block.language == "sh" and block.not_run is None)


def readme_script() -> str:
    """The commands of README.md that are run: the way to a cluster of one's own."""
    return "".join(re.findall(r"<!-- run -->\n```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))


def output(page: Path) -> list[str]:
    """The lines that a page says are printed, in order."""
    return [line for block in blocks(page) if block.is_output for line in block.text.splitlines() if line.strip()]


def run(commands: str, folder: Path, environment: Mapping[str, str], timeout_s: float = 900) -> str:
    """What commands print on stdout, run by bash in `folder`; what they start in the background ends with them."""
    given = {
        **os.environ,
        "XDG_STATE_HOME": str(folder / ".state"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **environment,
    }
    with (folder / ".stdout").open("w+") as stdout, (folder / ".stderr").open("w+") as stderr:
        running = subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail\n{commands}"],
            cwd=folder,
            env=given,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            code = running.wait(timeout_s)
        finally:
            _end(running.pid)
            stdout.seek(0)
            stderr.seek(0)
            printed, complained = stdout.read(), stderr.read()
        assert code == 0, f"exit code {code}\n{printed}\n{complained}"
    return printed


def _end(group: int) -> None:
    """Ends what is left of a session that `run` started."""
    try:
        os.killpg(group, signal.SIGTERM)
    except ProcessLookupError:
        return


def check_command(words: list[str], where: str) -> None:
    """Fails if neural-bridge has no such command or option."""
    command: click.Command = cli
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-"):
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"{where}: neural-bridge {' '.join(words)}: no command {word}"
            command = found
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    named = {word.partition("=")[0] for word in words if word.startswith("--")}
    unknown = named - options - {"--help", "--config", "--debug"}
    assert not unknown, f"{where}: neural-bridge {' '.join(words)}: no option {sorted(unknown)}"
