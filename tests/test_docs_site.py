"""The site of docs/: whole, without a warning, and without a word to the network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import nas

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
# What a browser fetches by itself: a link that a reader may follow is none.
FETCHED = re.compile(r"""<(?:script|img|iframe)\b[^>]*\bsrc="?([^\s">]+)|<link\b[^>]*>""")


def pages_of(nav):
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values():
                yield from pages_of([inner] if isinstance(inner, str) else inner)


def test_every_page_is_in_the_navigation_once():
    named = list(pages_of(CONFIG["nav"]))
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert len(named) == len(set(named))
    assert set(named) == there, "nav of mkdocs.yml"


def build(*options):
    """The site as ``make docs`` makes it."""
    (command,) = re.findall(r"/python (-m mkdocs build.*)", (ROOT / "Makefile").read_text())
    return subprocess.run(
        [sys.executable, *command.split(), *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build("--site-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[gone](gone.md)")
    (tmp_path / "mkdocs.yml").write_text("site_name: small\n")
    done = build("--config-file", tmp_path / "mkdocs.yml", "--site-dir", tmp_path / "site")
    assert done.returncode == 1 and "gone.md" in done.stderr


def test_every_page_is_built_and_fetches_nothing_from_elsewhere(site):
    built = sorted(site.rglob("*.html"))
    assert len(built) > len(list(pages_of(CONFIG["nav"])))
    for page in built:
        for found in FETCHED.finditer(page.read_text()):
            address = found[1] or re.search(r'href="?([^\s">]+)', found[0])[1]
            assert not re.match(r"(https?:)?//", address), f"{page.name}: {found[0]}"


def test_what_the_package_offers_is_in_the_reference(site):
    pages = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    for name in nas.__all__:
        assert pages.count(f'id="nas.{name}"') == 1
    page = (site / "api" / "searching.html").read_text()
    # Said in the docstring alone, so it comes of that.
    assert "in the folder" in page and "Raises" in page
