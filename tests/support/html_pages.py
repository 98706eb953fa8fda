"""Pages of HTML taken apart by the standard library's parser, and what may stand in one of ours."""

from __future__ import annotations

from html.parser import HTMLParser

_ELEMENTS = """
html head meta title style body header nav main section article footer h1 h2 h3 h4 p ul ol li a div
span bdi br dl dt dd table caption colgroup col thead tbody tr th td details summary figure
figcaption svg path rect text g
"""
_ATTRIBUTES = """
lang charset http-equiv content name id class href scope span colspan role aria-label aria-labelledby
aria-hidden tabindex viewbox preserveaspectratio d x y width height
fill-opacity text-anchor vector-effect
"""
ELEMENTS, ATTRIBUTES = frozenset(_ELEMENTS.split()), frozenset(_ATTRIBUTES.split())
VOID = frozenset({"meta", "br", "col", "path", "rect"})


class Page(HTMLParser):
    """What a page holds: `found` has (element, attributes) in order, `texts` the text of each `div.text`.

    A character that the page shows as an escape is that character again in `texts`.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.problems: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        if self._open:
            self.problems.append(f"never closed: {self._open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if len(given) != len(attrs):
            self.problems.append(f"<{tag}> has an attribute twice")
        self.found.append((tag, given))
        if tag in VOID:
            return
        kind = given.get("class", "")
        self._open.append((tag, kind))
        if tag == "div" and kind in ("text", "code"):
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open[-1][0] != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1:]}")
            return
        self._open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if any(kind in ("text", "code") for tag, kind in self._open if tag == "div"):
            self.texts[-1] += chr(int(data[2:], 16)) if self._open[-1][1] == "esc" else data

    def handle_comment(self, data: str) -> None:
        if data.strip() != "written by introspect":
            self.problems.append(f"comment {data!r}")

    def unknown_decl(self, data: str) -> None:
        self.problems.append(f"declaration {data!r}")

    def handle_pi(self, data: str) -> None:
        self.problems.append(f"instruction {data!r}")

    def complaints(self) -> list[str]:
        """What must not be in a page that needs nothing else and does nothing."""
        wrong = list(self.problems)
        ids = [given["id"] for _, given in self.found if "id" in given]
        wrong += [f"id {one} twice" for one in set(ids) if ids.count(one) > 1]
        for tag, given in self.found:
            wrong += [f"<{tag}>"] * (tag not in ELEMENTS)
            wrong += [f"<{tag} {name}>" for name in given if name not in ATTRIBUTES]
            target = given.get("href", "#")
            wrong += [f"href {target}"] * (
                not target.startswith("#") or (target != "#" and target[1:] not in ids)
            )
            labels = given.get("aria-labelledby", "").split()
            wrong += [f"no element {label}" for label in labels if label not in ids]
        return wrong
