"""The documentation site builds without a warning: no broken link, anchor or missing page. No network is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="extra docs")

ROOT = Path(__file__).parents[2]
STRICT = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html"]


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    offline = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    words = [sys.executable, "-m", "sphinx", *STRICT, "--doctree-dir", f"{target}.trees", str(source), str(target)]
    return subprocess.run(words, cwd=ROOT, env=offline, capture_output=True, text=True, check=False, timeout=120)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = build(ROOT / "docs", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "tutorial" / "first-search.html").is_file()
    assert "IndexProfile" in (tmp_path / "site" / "reference" / "meta-fields.html").read_text(encoding="utf-8")


def test_a_broken_anchor_would_be_noticed(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    (source / "conf.py").write_text('extensions = ["myst_parser"]\nmyst_heading_anchors = 4\n', encoding="utf-8")
    (source / "index.md").write_text("# Here\n\n[there](#nowhere)\n", encoding="utf-8")
    done = build(source, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
