"""Reads a page as a browser would: which elements, attributes and texts, and whether it is well formed."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "img", "br", "hr", "input", "link"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: tuple[str, ...] = ()


@dataclass
class Page(HTMLParser):
    """The elements of a page in order, each with the text inside it; raises AssertionError for a tag left open."""

    source: str
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[Element] = []
        self.feed(self.source)
        self.close()
        assert not self._open, [element.tag for element in self._open]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {attrs}"
        element = Element(tag, dict(attrs), inside=tuple(element.tag for element in self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open and self._open[-1].tag == tag, f"</{tag}> where {[e.tag for e in self._open]} are open"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.elements if element.tag in tags]


def check_page(source: str) -> Page:
    """What holds for every page: nothing from outside, nothing that runs, and readable without eyes."""
    page = Page(source)
    (html,) = page.all("html")
    assert html.attributes["lang"] == "en" and page.all("title")[0].text.strip()
    assert not page.all("script", "link", "iframe", "object", "embed", "base", "form", "svg")
    for element in page.elements:
        assert not any(name.startswith("on") for name in element.attributes), element
        address = element.attributes.get("src", element.attributes.get("href", "#"))
        assert address.startswith(("data:image/svg+xml;base64,", "#")) or ":" not in address, address
        assert not address.startswith("/")
    assert "url(" not in source and "@import" not in source
    levels = [int(element.tag[1]) for element in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(len(image.attributes["alt"]) > 20 for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(element.attributes.get("scope") in ("col", "row") for element in page.all("th"))
    assert all(element.text.strip() for element in page.all("caption", "th", "a", "summary", "h1", "h2", "h3"))
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    targets = [a.attributes["href"][1:] for a in page.all("a") if a.attributes["href"].startswith("#")]
    assert len(ids) == len(set(ids)) and set(targets) <= set(ids)
    return page
