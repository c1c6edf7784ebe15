"""The live browser: ipywidgets around :mod:`.retriever` and :mod:`.page`, for JupyterLab and VS Code."""

import base64
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
from IPython.display import Javascript

from ..benchmark import Benchmark
from ..errors import CMICError
from ..index import ShapeIndex
from . import page
from .page import STYLE, MapPicture, Pictures
from .retriever import GIVEN, ORDERS, Answer, Choice, Question, Retriever, best_mask
from .upload import FORMATS, MAX_BYTES, read_mask_upload, read_upload

VIEWER = Path(__file__).resolve().parents[2] / "vendor" / "model-viewer" / "model-viewer-umd.min.js"
NO_VIEWER = "<p>The 3D viewer's script is not here; run <code>make vendor</code> once, then open this again.</p>"
# Beside require.js the script would define an anonymous module; without these three names it defines the element.
LOAD_VIEWER = (
    "if (!customElements.get('model-viewer')) (function (define, exports, module) {{ {script} }}).call(window);"
)
# JupyterLab moves between cells with the arrow keys, and so takes them from lists and from the 3D viewer, unless the
# very element that has the focus bears this attribute.
KEEP_KEYS = (
    "document.addEventListener('focusin', ({ target }) => "
    "target.closest('.cmic') && target.setAttribute('data-lm-suppress-shortcuts', 'true'));"
)
WIDE = widgets.Layout(width="auto", max_width="26rem")
MASKS = {"given": "mask given", "automatic": "automatic mask", "none": "no mask"}
log = logging.getLogger(__name__)


class QueryBrowser(widgets.VBox):
    """Pick a test photo or upload one, see the ``top`` shapes found and why; without test photos it takes uploads.

    Index, benchmark, ``vectors`` and ``atlas`` are those of :class:`cmiclib.browser.retriever.Retriever`. Without
    vectors, sorting, filtering or the map first embed the photos, with a progress bar.
    """

    def __init__(self, index: ShapeIndex, benchmark: Benchmark, *, top: int = 8, **known: Any):
        self.retriever, self.top, self._pictures = Retriever(index, benchmark, **known), top, Pictures(benchmark)
        self.question: Question | None = None
        self.answer: Answer | None = None
        self._map: MapPicture | None = None
        self._quiet = False  # True while code sets fields, whose changes then start no search
        self._make_fields()
        super().__init__([widgets.HTML(STYLE), self._script, *self._layout()])
        self.add_class("cmic")
        self._list_photos()

    def _make_fields(self) -> None:
        categories = [("all", ""), *((name, name) for name in sorted(set(self.retriever.listing.category)))]
        outcomes = [("all", ""), ("right", "right"), ("wrong", "wrong")]
        self.category = widgets.Dropdown(options=categories, description="Category", layout=WIDE)
        self.outcome = widgets.Dropdown(options=outcomes, description="First shape", layout=WIDE)
        self.order = widgets.Dropdown(options=list(ORDERS), description="Order", layout=WIDE)
        self.photo = widgets.Select(options=[], description="Photo", rows=8, layout=WIDE)
        accept = ",".join(f".{name.lower()}" for name in (*FORMATS, "JPG", "HEIC"))
        self.upload = widgets.FileUpload(accept=accept, description="Choose a photo", layout=WIDE)
        self.mask_upload = widgets.FileUpload(accept=accept, description="Choose its mask", layout=WIDE)
        self.mask = widgets.Dropdown(options=[], description="Mask", layout=WIDE)
        self.mirror = widgets.Checkbox(description="Mirror the photo", indent=False)
        self.use_box = widgets.Checkbox(description="Cut a box out", indent=False)
        self.across = widgets.IntRangeSlider(description="x from, to", continuous_update=False, layout=WIDE)
        self.down = widgets.IntRangeSlider(description="y from, to", continuous_update=False, layout=WIDE)
        small = {"layout": {"width": "6.5rem"}, "style": {"description_width": "1.5rem"}}
        self.sides = [widgets.BoundedIntText(description=name, **small) for name in ("x0", "y0", "x1", "y1")]
        self.box = widgets.VBox([self.across, self.down, widgets.HBox(self.sides, layout={"flex_flow": "row wrap"})])
        self.box.layout.display = "none"
        self.shape = widgets.ToggleButtons(options=[], description="Look at", style={"button_width": "3.4rem"})
        self.map_button = widgets.Button(description="Show the map", tooltip="Lays photos and shapes out, once")
        self.export = widgets.Button(description="Export this result", tooltip="As JSON and as a picture")
        self.progress = widgets.IntProgress(description="Photos", layout={"display": "none"})
        self.status, self.problem, self.links, self.map_html = (widgets.HTML() for _ in range(4))
        self.photo_html, self.ranking_html, self.views_html, self.model_html = (widgets.HTML() for _ in range(4))
        self._script = widgets.Output()
        self._script.append_display_data(Javascript(KEEP_KEYS))
        if VIEWER.is_file():
            self._script.append_display_data(Javascript(LOAD_VIEWER.format(script=VIEWER.read_text("utf-8"))))
        _on_change(self._list_photos, self.category, self.outcome, self.order)
        _on_change(self._pick, self.photo)
        _on_change(self._receive, self.upload)
        _on_change(self._receive_mask, self.mask_upload)
        _on_change(self._ask, self.mask, self.mirror, self.use_box)
        _on_change(lambda: self._box_changed(typed=False), self.across, self.down)
        _on_change(lambda: self._box_changed(typed=True), *self.sides)
        _on_change(self._look, self.shape)
        self.map_button.on_click(lambda button: self._show_map())
        self.export.on_click(lambda button: self._export())

    def _layout(self) -> list[Any]:
        limits = f"<p>{', '.join(FORMATS)}; at most {MAX_BYTES // 1_000_000} MB. The mask, white at the object, is"
        note = widgets.HTML(f"{limits} optional; a box helps most photos without one.</p>")
        stored = widgets.VBox([self.category, self.outcome, self.order, self.photo])
        sources = widgets.Tab([stored, widgets.VBox([self.upload, self.mask_upload, note])])
        sources.titles, sources.selected_index = ("Test photos", "Your photo"), int(not len(self.retriever.rows))
        left = widgets.VBox([sources, self.mask, self.mirror, self.use_box, self.box, self.photo_html])
        left.layout = {"flex": "1 1 20rem", "min_width": "0", "max_width": "30rem"}
        shown = [self.ranking_html, self.shape, self.views_html, self.model_html]
        right = widgets.VBox([self.status, self.progress, self.problem, *shown])
        right.layout = {"flex": "3 1 22rem", "min_width": "0"}
        columns = widgets.Box([left, right], layout={"flex_flow": "row wrap", "align_items": "flex-start"})
        more = widgets.HBox([self.map_button, self.export], layout={"flex_flow": "row wrap"})
        return [columns, more, self.links, self.map_html]

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Show errors as sentences; a traceback goes to the kernel's log, never to the page."""
        self.problem.value, self.status.value = "", f'<p role="status">{doing} …</p>'
        started = time.perf_counter()
        try:
            yield
        except CMICError as error:
            self.problem.value = page.message(error)
        except Exception:
            log.exception("the query browser failed: %s", doing)
            self.problem.value = page.message(CMICError("this failed unexpectedly", fix="try another photo"))
        seconds = time.perf_counter() - started
        self.status.value = "" if self.problem.value else f'<p role="status">Done in {seconds:.2f} s.</p>'

    @contextmanager
    def _setting(self) -> Iterator[None]:
        self._quiet, before = True, self._quiet
        try:
            yield
        finally:
            self._quiet = before

    def _list_photos(self) -> None:
        with self._guarded("Sorting the photos"):
            if self.outcome.value or self.order.value != "by name":
                self._embed()
            chosen = self.retriever.select(self.category.value, self.outcome.value, self.order.value)
            labels = chosen.query_id.tolist()
            if "outcome" in chosen:
                margins = ["" if np.isnan(margin) else f"{margin:+.3f} " for margin in chosen.margin]
                marks = [{"right": "✓", "wrong": "✗"}[outcome] for outcome in chosen.outcome]
                labels = [f"{mark} {margin}{name}" for mark, margin, name in zip(marks, margins, labels, strict=True)]
            with self._setting():
                self.photo.options = list(zip(labels, chosen.row.tolist(), strict=True))
                self.photo.value = next(iter(chosen.row.tolist()), None)
        self._pick()

    def _embed(self) -> None:
        """Embed the test photos once, with a progress bar."""
        if self.retriever.vectors is not None:
            return
        self.progress.max, self.progress.layout.display = len(self.retriever.rows), None
        try:
            self.retriever.embed_photos(lambda done, total: setattr(self.progress, "value", done))
        finally:
            self.progress.layout.display = "none"

    def _pick(self) -> None:
        if not self._quiet and self.photo.value is not None:
            with self._guarded("Opening the photo"):
                self._take(self.retriever.stored(self.photo.value))

    def _receive(self) -> None:
        if self.upload.value:
            file = self.upload.value[0]
            with self._guarded("Reading the photo"):
                photo, sent, mask, how = read_upload(bytes(file["content"]))
                self._take(Question(str(file["name"])[:100], photo, mask, sent, how=how))

    def _receive_mask(self) -> None:
        if self.mask_upload.value:
            with self._guarded("Reading the mask"):
                if self.question is None or self.question.stored is not None:
                    raise CMICError("there is no photo of yours for this mask yet", fix="choose the photo first")
                mask = read_mask_upload(bytes(self.mask_upload.value[0]["content"]), self.question.photo)
                self._take(replace(self.question, mask=mask, how=GIVEN))

    def _take(self, question: Question) -> None:
        """Make this the question, with the whole photo as the box and the best mask."""
        self.question = question
        choices = [*(["given"] if question.mask is not None else []), "none", "automatic"]
        height, width = question.size
        with self._setting():
            self.mask.options = [(MASKS[name], name) for name in choices]
            self.mask.value, self.use_box.value = best_mask(question), False
            for slider, length in ((self.across, width), (self.down, height)):
                slider.min, slider.max, slider.value = 0, length, (0, length)
            for field, length in zip(self.sides, (width, height, width, height), strict=True):
                field.max = length
            self._copy_box(typed=False)
        self._ask()

    def _copy_box(self, typed: bool) -> None:
        x0, y0, x1, y1 = self.sides
        if typed:
            self.across.value, self.down.value = sorted((x0.value, x1.value)), sorted((y0.value, y1.value))
        (x0.value, x1.value), (y0.value, y1.value) = self.across.value, self.down.value

    def _box_changed(self, typed: bool) -> None:
        if not self._quiet:
            with self._guarded("Moving the box"), self._setting():
                self._copy_box(typed)
            self._ask()

    def _ask(self) -> None:
        self.box.layout.display = None if self.use_box.value else "none"
        if self._quiet or self.question is None:
            return
        with self._guarded("Searching"):
            box = tuple(float(side.value) for side in self.sides) if self.use_box.value else None
            choice = Choice(self.mask.value, box, self.mirror.value, self.top)  # type: ignore[arg-type]
            self.answer = answer = self.retriever.answer(self.question, choice)
            self.links.value = ""
            self.photo_html.value = page.photo_part(answer, self._pictures)
            self.ranking_html.value = page.ranking(answer, self._pictures)
            with self._setting():
                self.shape.options = [(f"{each.rank}{' ✓' if each.right else ''}", each.rank) for each in answer.found]
                self.shape.value = 1
            self._show_shape()
            if self.retriever.known_atlas is not None:
                self._place()

    def _look(self) -> None:
        """Show the chosen shape."""
        if not self._quiet and self.answer is not None and self.shape.value is not None:
            with self._guarded("Opening the shape"):
                self._show_shape()

    def _show_shape(self) -> None:
        assert self.answer is not None
        found = self.answer.found[self.shape.value - 1]
        self.views_html.value = page.view_part(found, self.retriever.azimuths, self._pictures)
        uri = page.model_uri(self.retriever.gallery, found.shape_id)
        self.model_html.value = page.viewer_part(uri, found.shape_id) if VIEWER.is_file() else NO_VIEWER

    def _show_map(self) -> None:
        with self._guarded("Laying out the map"):
            self._embed()
            self._place()

    def _place(self) -> None:
        atlas = self.retriever.atlas
        self._map = self._map or MapPicture(atlas)
        self.map_button.layout.display = "none"
        if self.answer is not None:
            self.map_html.value = page.map_part(self._map.uri, *self._map.percent(atlas.locate(self.answer.vector)))

    def _export(self) -> None:
        with self._guarded("Drawing"):
            if self.answer is None:
                raise CMICError("there is no result yet", fix="choose a photo")
            record = json.dumps(self.answer.record(), indent=1, ensure_ascii=False, allow_nan=False).encode()
            picture = page.answer_png(self.retriever, self.answer, self.shape.value - 1)
            name = escape(Path(self.answer.question.name).stem)
            self.links.value = " ".join(
                f'<a download="{name}.{kind}" href="data:{mime};base64,{base64.b64encode(content).decode()}">'
                f"Save {name}.{kind}</a>"
                for kind, mime, content in (("json", "application/json", record), ("png", "image/png", picture))
            )


def _on_change(react: Callable[[], None], *fields: widgets.Widget) -> None:
    for field in fields:
        field.observe(lambda change: react(), "value")
