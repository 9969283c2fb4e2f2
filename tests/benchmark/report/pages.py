"""What tests of pages read them with."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would see: start tags, and the texts of the elements that hold records."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.pres, self._inside = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag == "pre"
        if self._inside:
            self.pres.append("")

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.pres[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]
