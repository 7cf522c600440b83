# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Check the links of the site that was built, offline.

A link has to lead to a file of the site and, where it names one, to an anchor
in that file. Of a link that leaves the site only the form is looked at. What is
wrong is a warning, and with that an error of ``tools/build_docs.py``.
"""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util import logging

logger = logging.getLogger(__name__)


class Page(HTMLParser):
    """The anchors of a page, and what it links to or shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors = {'', 'top'}  # of every page in HTML
        self.links = {}  # in the order of the page, each once
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        """Note ids and links."""
        for name, value in attrs:
            if name == 'id':
                self.anchors.add(value)
            elif name in ('href', 'src'):
                self.links[value or ''] = True


def fault_of_external(link: str) -> str | None:
    """What is wrong with the form of a link that leaves the site, if
    anything."""
    parts = urlsplit(link)
    if parts.scheme == 'data':
        return None
    if parts.scheme not in ('http', 'https'):
        return 'neither http nor https'
    if '.' not in (parts.hostname or '') or any(c.isspace() for c in link):
        return 'not the form of an address'
    return None


def broken_links(site: Path) -> Iterator[tuple[str, str, str]]:
    """Find the links of a built site that are broken.

    Args:
        site (Path): Folder of the site.

    Yields:
        tuple[str, str, str]: The page's path in the site, the link, and what
        is wrong with it.
    """
    site = site.resolve()
    pages = {path: Page(path) for path in sorted(site.rglob('*.html'))}
    for path, page in pages.items():
        for link in page.links:
            fault = _fault(link, path, site, pages)
            if fault:
                yield path.relative_to(site).as_posix(), link, fault


def _fault(link: str, path: Path, site: Path, pages: dict) -> str | None:
    try:
        parts = urlsplit(link)
    except ValueError as error:
        return str(error)
    if parts.scheme or parts.netloc:
        return fault_of_external(link)
    target = path
    if parts.path:
        target = (path.parent / unquote(parts.path)).resolve()
    if parts.path.startswith('/') or not target.is_relative_to(site):
        return 'leads out of the site'
    if not target.is_file():
        return 'no such file'
    if target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return 'no such anchor'
    return None


def warn(app, exception) -> None:
    """Warn of every broken link, once the site is written."""
    if exception is None and app.builder.format == 'html':
        for page, link, fault in broken_links(Path(app.outdir)):
            logger.warning('%s links to %r: %s', page, link, fault, type='links')


def setup(app) -> dict:
    """Called by Sphinx."""
    app.connect('build-finished', warn)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
