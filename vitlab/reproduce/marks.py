"""Generated lines of a page that is written by hand: they stand between two comments."""

from vitlab.errors import VitlabError


def fill(page: str, name: str, lines: str) -> str:
    """A page whose lines between `<!-- NAME -->` and `<!-- end of NAME -->` are those given."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if page.count(start) != 1 or page.count(end) != 1:
        raise VitlabError(f"the page needs one line {start} and one line {end}")
    before, rest = page.split(start)
    after = rest.split(end)[1]
    return f"{before}{start}\n{lines}\n{end}{after}"
