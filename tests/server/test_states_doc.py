"""docs/architecture.rst shows the states as they are."""

from pathlib import Path

from socksd.server import states

PAGE = Path(__file__).parent.parent.parent / "docs" / "architecture.rst"


def test_the_page_shows_the_table_that_the_code_prints() -> None:
    """After a change: ``python -m socksd.server.states``, between the two markers."""
    _, _, rest = PAGE.read_text().partition(".. states begin\n")
    shown, end, _ = rest.partition(".. states end\n")
    assert end, "the markers are gone"
    assert shown.strip() == states.table().strip()
