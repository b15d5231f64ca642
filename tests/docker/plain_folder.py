"""Builds the stages of a Dockerfile in plain folders: the same COPY and RUN steps, without a container engine.

Each stage is a folder. Paths inside a container (`/opt/…`, `/src/…`, `/state`) are taken under a symbolic link that
leads to the folder of the stage at hand, so that what a step writes down (the first line of a script, say) also
holds where a later stage has it. `python` is the Python that runs the tests.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from dockerfile_parse import DockerfileParser

_INSIDE = re.compile(r"(?<![\w./*-])/(?=(?:opt|src|state)\b)")


@dataclass(frozen=True)
class Stage:
    """What a stage holds and how it would be run; `folder` is its root."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health_check: tuple[str, ...] | None = None
    ports: tuple[int, ...] = ()


class PlainFolderBuild:
    """Builds the stages that `target` needs from `dockerfile`, with `context` as the build's context."""

    def __init__(self, dockerfile: Path, context: Path, folder: Path) -> None:
        self._context = context
        self._folder = folder
        self._inside = folder / "container"
        # Debian's Python is called python3 alone.
        self._python = folder / "python"
        self._python.mkdir(parents=True)
        (self._python / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
        self._steps = DockerfileParser(path=str(dockerfile)).structure
        self._built: dict[str, Stage] = {}

    def build(self, target: str) -> Stage:
        """The stage of that name, built once."""
        if target not in self._built:
            self._built[target] = self._build(target)
        return self._built[target]

    def enter(self, stage: Stage) -> None:
        """Lets paths of the container lead to this stage."""
        self._inside.unlink(missing_ok=True)
        self._inside.symlink_to(stage.folder)

    def outside(self, text: str) -> str:
        """The same text, with paths of the container as this machine has them."""
        return _INSIDE.sub(f"{self._inside}/", text)

    def _build(self, name: str) -> Stage:
        base, steps = self._steps_of(name)
        folder = self._folder / "stages" / name
        if base in {step[1] for step in self._names()}:
            parent = self.build(base)
            shutil.copytree(parent.folder, folder, symlinks=True)
            stage = replace(parent, folder=folder)
        else:
            folder.mkdir(parents=True)
            stage = Stage(folder)
        for instruction, value in steps:
            stage = self._step(stage, instruction, value)
        return stage

    def _names(self) -> list[tuple[str, str]]:
        """Base and name of every stage."""
        found = []
        for step in self._steps:
            if step["instruction"] == "FROM":
                base, _, name = step["value"].partition(" AS ")
                found.append((base, name))
        return found

    def _steps_of(self, name: str) -> tuple[str, list[tuple[str, str]]]:
        base, steps, here = "", [], False
        for step in self._steps:
            if step["instruction"] == "FROM":
                here = step["value"].endswith(f" AS {name}")
                base = step["value"].partition(" AS ")[0] if here else base
            elif here and step["instruction"] != "COMMENT":
                steps.append((step["instruction"], step["value"]))
        assert base, f"no stage {name}"
        return base, steps

    def _step(self, stage: Stage, instruction: str, value: str) -> Stage:
        match instruction:
            case "ENV":
                given = dict(pair.split("=", 1) for pair in value.split())
                return replace(stage, environment=stage.environment | given)
            case "WORKDIR":
                (stage.folder / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
                return replace(stage, workdir=value)
            case "USER":
                return replace(stage, user=value)
            case "EXPOSE":
                return replace(stage, ports=tuple(map(int, value.split())))
            case "ENTRYPOINT":
                return replace(stage, entrypoint=tuple(json.loads(value)))
            case "CMD":
                return replace(stage, command=tuple(json.loads(value)))
            case "HEALTHCHECK":
                check = value.partition("CMD ")[2]
                return replace(stage, health_check=tuple(json.loads(check)) if check else None)
            case "COPY":
                self._copy(stage, value.split())
                return stage
            case "RUN":
                self._run(stage, value)
                return stage
        raise AssertionError(f"{instruction} is not understood here: teach it, or do without")

    def _copy(self, stage: Stage, words: list[str]) -> None:
        options = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
        *sources, destination = (word for word in words if not word.startswith("--"))
        root = self.build(options["from"]).folder if "from" in options else self._context
        to = stage.folder / os.path.join(stage.workdir, destination).lstrip("/")
        for source in sources:
            path = root / source.lstrip("/")
            if path.is_dir():
                shutil.copytree(path, to, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into = to / path.name if destination.endswith("/") else to
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, into)

    def _run(self, stage: Stage, command: str) -> None:
        self.enter(stage)
        done = subprocess.run(
            ["/bin/sh", "-ec", self.outside(command)],
            cwd=self._inside / stage.workdir.lstrip("/"),
            env={**os.environ, "PATH": f"{self._python}:{os.environ['PATH']}"} | stage.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
