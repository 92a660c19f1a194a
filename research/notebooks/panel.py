"""Controls, and the picture that their values make: widgets in JupyterLab, the picture alone elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ipywidgets import HTML, HBox, Image, VBox, Widget
from matplotlib.figure import Figure

from research.errors import UsageError
from research.figures.style import STYLE


class Panel:
    """Controls above a picture that is drawn anew whenever one of them is changed.

    Where no widgets can be shown, as in a notebook that was executed from a shell, it is the picture alone.
    """

    def __init__(self, *rows: Sequence[Widget]):
        self.picture = Image(format="png", layout={"align_self": "flex-start", "max_width": "100%"})
        self.line, self.text = HTML(), ""
        self.box = VBox([*map(HBox, rows), self.line, self.picture])
        self._reacting = False
        self.update()
        for control in (control for row in rows for control in row):
            control.observe(self._react, "value")

    def draw(self) -> tuple[Figure, str]:
        """The figure that the values of the controls ask for, and a line to stand above it.

        Raises:
            UsageError: there is none; its text is shown instead.
        """
        raise NotImplementedError

    def follow(self, control: Widget) -> None:
        """Adapt the other controls to a change of ``control``."""

    def update(self, changed: Widget | None = None) -> None:
        """Draw the picture anew after a control ``changed``."""
        try:
            self.follow(changed)
            figure, self.text = self.draw()
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=STYLE["figure.dpi"])
            self.picture.value = content.getvalue()
        except UsageError as error:
            self.picture.value, self.text = b"", str(error)
        self.line.value = html.escape(self.text).replace("\n", "<br>")

    def _react(self, change: Mapping[str, Any]) -> None:
        if not self._reacting:  # else a control that follows another
            self._reacting = True
            try:
                self.update(change["owner"])
            finally:
                self._reacting = False

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        shown = {**self.box._repr_mimebundle_(), "text/plain": self.text}
        if self.picture.value:
            shown["image/png"] = base64.b64encode(self.picture.value).decode()
        return shown
