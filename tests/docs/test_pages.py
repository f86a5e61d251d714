"""The reference is complete: what there is stands there, and what stands there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.pages import PAGES, REFERENCE

import cloche
from cloche.cli.commands import COMMANDS
from cloche.core.codes import CODES
from cloche.monitoring.exposition import COUNTERS, GAUGES, HISTOGRAMS
from cloche.serving.guard import OPERATIONS, PUBLIC
from cloche.serving.protocols.schema import problem_responses

ROOT = REFERENCE.parents[1]
PROSE = [
    path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if path.name not in {*PAGES, "CHANGELOG.md"}
]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_that_is_made_from_the_code_is_up_to_date(name: str) -> None:
    assert (REFERENCE / name).read_text() == PAGES[name](), "run `make docs`"


def test_every_command_code_metric_and_public_name_is_documented() -> None:
    # The pages are made from the same tables; this guards the making itself.
    cli, errors, metrics, python = (
        (REFERENCE / name).read_text() for name in ("cli.md", "errors.md", "metrics.md", "python.md")
    )
    assert [name for name in COMMANDS if f"## cloche {name}\n" not in cli] == []
    assert [code for code in CODES if f"`{code}`" not in errors] == []
    assert [name for name in [*COUNTERS, *HISTOGRAMS, *GAUGES] if f"`{name}`" not in metrics] == []
    assert [
        name for name in cloche.__all__ if f"cloche.{name}" not in python + errors + "cloche.ClocheError"
    ] == []


def test_every_metric_that_is_counted_is_shown() -> None:
    known = {*COUNTERS, *HISTOGRAMS, *GAUGES}
    counted = {
        name
        for room in ("app", "control", "engine", "monitoring", "serving")
        for path in (ROOT / "src" / "cloche" / room).rglob("*.py")
        for name in re.findall(r'"(cloche_[a-z_]+)"', path.read_text())
    }
    assert len(counted) > 10
    assert counted - known == set()


def test_every_action_of_the_log_is_documented_and_no_other() -> None:
    said = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r'"action": "([a-z_]+)"|\bsay\(\s*"([a-z_]+)"', path.read_text())
    }
    listed = re.findall(r"^\| `([a-z_]+)` \|", (REFERENCE / "logs.md").read_text(), re.MULTILINE)
    assert {first or second for first, second in said} == set(listed)


def test_every_path_that_is_served_is_documented() -> None:
    text = (REFERENCE / "http.md").read_text()
    missing = [path for path in (*PUBLIC, *OPERATIONS) if path.decode().strip("/") not in text]
    assert missing == []
    assert [status for status in problem_responses() if status not in text] == []


@pytest.mark.parametrize("document", PROSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_the_docs_name_exists(document: Path) -> None:
    text = document.read_text()
    codes = {code for code in re.findall(r"CL-E\d{3}", text) if code not in CODES}
    spoken = re.findall(r"(?:^\$ |`)cloche ([a-z]+)(?: ([a-z]+))?", text, re.MULTILINE)
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    unknown = {
        first if first not in groups else f"{first} {second}"
        for first, second in spoken
        if first not in COMMANDS and f"{first} {second}" not in COMMANDS and not (first in groups and not second)
    }
    assert (codes, unknown) == (set(), set())


@pytest.mark.parametrize("document", PROSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_nothing_is_called_by_a_word_that_the_glossary_forbids() -> None:
    forbidden = re.compile(
        r"\b(artifact|artefact|bento|model zoo|model hub|backend|flavor|flavour|replica|sidecar)s?\b", re.I
    )
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in [*PROSE, *(REFERENCE / name for name in PAGES)]
        if path.name != "glossary.md"
        for match in forbidden.finditer(path.read_text())
    }
    assert found == set()
