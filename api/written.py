"""The path of a file that was written, which a notebook shows as what is in the file."""

from __future__ import annotations

import base64
import sys
from html import escape
from typing import Any

if sys.platform == "win32":
    from pathlib import WindowsPath as Local
else:
    from pathlib import PosixPath as Local

HEIGHT = 800  # of a page in a notebook [px]


class Written(Local):
    """A path. In a notebook: the picture, the page or the text of the file."""

    def __repr__(self) -> str:
        return f"Written({str(self)!r})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        shown = {"text/plain": repr(self)}
        suffix = self.suffix.lower()
        if not self.is_file():
            return shown
        if suffix == ".png":
            shown["image/png"] = base64.b64encode(self.read_bytes()).decode()
        elif suffix == ".html":
            page = escape(self.read_text(encoding="utf-8"))
            shown["text/html"] = (
                f'<iframe title="report" srcdoc="{page}" style="width: 100%; height: {HEIGHT}px;'
                ' border: 0"></iframe>'
            )
        elif suffix in (".svg", ".md"):
            kind = {".svg": "image/svg+xml", ".md": "text/markdown"}[suffix]
            shown[kind] = self.read_text(encoding="utf-8")
        return shown
