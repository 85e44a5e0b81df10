"""Outputs below commands in README.md and docs/ are blocks of text, which test_readme.py reads."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BARE = re.compile(r"^```(sh|python)\n(?:(?!```).*\n)+```\n```\n", re.M)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_every_output_below_a_command_is_compared(page):
    assert not BARE.search(page.read_text(encoding="utf-8"))


def test_a_bare_block_below_a_command_is_found():
    assert BARE.search("```sh\nls\n```\n```\nfile\n```\n")
    assert not BARE.search("```sh\nls\n```\n```text\nfile\n```\n")
