"""Every code block of tutorial and how-to is run, or else a parser checks it and it says why."""

import json
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
import yaml

from bridge.settings import Settings
from tests.docs.blocks import DOCS, PAGES, README, Block, blocks, check_command, prepared, readme_script

ROOT = DOCS.parent
BLOCKS = [block for page in PAGES for block in blocks(page)]
NOT_RUN = {
    "collection": 2,
    "database": 1,
    "docker": 2,
    "elasticsearch": 1,
    "gpu": 1,
    "hub": 4,
    "install": 3,
    "interleave": 2,
    "kubernetes": 2,
    "long": 3,
    "photos": 1,
    "secured": 2,
    "serve": 3,
    "systemd": 3,
    "train": 7,
}
"""Reason → how many blocks are not run for it. `secured` and `elasticsearch` run on clusters of their own
(tests/integration/test_docs_run.py); parsers check the others."""


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each call of neural-bridge in a script."""
    unfolded = re.sub(r"\\\n", " ", re.sub(r"<<'(\w+)'.*?\n\1\n", "\n", text, flags=re.DOTALL))
    for line in unfolded.splitlines():
        found = re.search(r"(?:^|[ /])neural-bridge( [^|;&>]*)?(?=$|[|;&>])", line)
        if found:
            yield shlex.split(found[1] or "", comments=True)


def test_every_block_has_a_language_that_is_checked() -> None:
    assert len(BLOCKS) > 40
    assert {block.name: block.language for block in BLOCKS if block.language not in ("sh", "yaml", "json", "text")} == {
        block.name: block.language for block in BLOCKS if block.language == "{toctree}"
    }


def test_blocks_that_are_not_run_are_counted() -> None:
    assert Counter(block.not_run for block in of("sh") if block.not_run) == NOT_RUN


def test_pages_begin_in_a_known_state() -> None:
    assert {prepared(page) for page in PAGES} <= {"nothing", "products", "enriched"}


@pytest.mark.parametrize("block", of("sh"), ids=lambda block: block.name)
def test_commands_are_valid(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    for words in commands(block.text):
        check_command(words, block.name)


@pytest.mark.parametrize("block", of("sh"), ids=lambda block: block.name)
def test_files_of_the_project_exist(block: Block) -> None:
    named = re.findall(r"\b(?:scripts|docker|examples)/[\w./@-]+", block.text)
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("block", of("yaml"), ids=lambda block: block.name)
def test_settings_are_valid(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("BRIDGE_CONFIG",):
        monkeypatch.delenv(variable, raising=False)
    Settings.model_validate(yaml.safe_load(block.text))


@pytest.mark.parametrize("block", of("json"), ids=lambda block: block.name)
def test_json_is_valid(block: Block) -> None:
    json.loads(block.text)


def test_every_block_of_text_is_what_commands_print() -> None:
    assert [block.name for block in of("text") if not block.is_output] == []


@pytest.mark.parametrize("block", [b for b in of("sh") if b.not_run == "systemd"], ids=lambda block: block.name)
def test_units_that_are_enabled_are_installed_before(block: Block) -> None:
    for unit in re.findall(r"systemctl enable --now ([\w@-]+)", block.text):
        name, at, _ = unit.partition("@")
        assert (ROOT / "scripts" / "operations" / f"{name}{at}.service").is_file()


@pytest.mark.parametrize("block", [b for b in of("sh") if b.not_run == "docker"], ids=lambda block: block.name)
def test_compose_commands_name_services_that_there_are(block: Block) -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for service in re.findall(r"compose -f docker/compose.yaml run --rm (\S+)", block.text):
        assert service in services


@pytest.mark.parametrize("block", [b for b in of("sh") if b.not_run == "kubernetes"], ids=lambda block: block.name)
def test_kubernetes_commands_name_what_the_manifests_have(block: Block) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docker" / "kubernetes").glob("*.yaml")))
    for name in re.findall(r"create secret generic (\S+)|deployment/(\S+)", block.text):
        assert f"{''.join(name)}" in text


def test_the_readme_begins_within_eighty_columns() -> None:
    first = README.read_text(encoding="utf-8").partition("## How it works")[0].splitlines()
    wide = [line for line in first if len(line) > 80 and "](" not in line]
    assert wide == []
    assert len(first) < 60


def test_the_commands_of_the_readme_are_valid() -> None:
    assert readme_script().count("neural-bridge") >= 3
    for words in commands(readme_script()):
        check_command(words, "README.md")


def test_a_wrong_option_would_be_noticed() -> None:
    [words] = commands("X=1 neural-bridge index show products --frob | cat")
    assert words == ["index", "show", "products", "--frob"]
    with pytest.raises(AssertionError):
        check_command(words, "here")
