"""The app's server: one page and a JSON interface over one retriever, for visitors of this machine.

One thread searches; who comes meanwhile waits, and where too many wait the answer is 503. Nothing is kept of a visitor:
the page sends the photo with every question.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..errors import BenchmarkError, CMICError, ImageError, MissingArrayError
from ..index.query import parse_box, stored_row
from ..io.files import read_limited
from .answers import solid_json
from .doubt import Doubt
from .gate import Guard, Worker, refuse, reply_json
from .interface import LIMITS, Answered, Asked, Shape, openapi
from .page import HERE, MODEL_LIMIT, PHOTO, MapPicture, data_uri, guessed, verdict, webp
from .retriever import GIVEN, Answer, Choice, Found, Question, Retriever, best_mask
from .upload import MAX_BYTES, read_mask_upload, read_upload

MOST_WAITING = 40
PATIENCE = 60  # seconds for a visitor to send a photo
PLAIN = 3.0  # deviation of gray values below which a picture is of one colour
FILES = {"app.css": "text/css", "app.js": "text/javascript", "solid.js": "text/javascript"}


class Pages:
    """The endpoints over one retriever; ``words`` say what it searches with."""

    def __init__(self, retriever: Retriever, words: str, most_waiting: int = MOST_WAITING):
        self.retriever, self.words, self.most_waiting, self.waiting = retriever, words, most_waiting, 0
        self.doubt = Doubt(retriever)
        self.worker = Worker(self._spare())
        self.mark = retriever.gallery.hash[:8]  # in the addresses of pictures, which web browsers keep
        self.picture = lru_cache(10_000)(self._picture)
        self._about = self._describe()  # now, so that the first visitor does not wait for it

    def _spare(self) -> Iterator[None]:
        if len(self.retriever.rows):  # the first answer of a process takes longer
            self.retriever.answer(self.retriever.stored(int(self.retriever.rows[0])))
        yield
        yield from self.doubt.steps()

    @property
    def full(self) -> bool:
        """Whether no more visitors may wait."""
        return self.waiting >= self.most_waiting

    async def home(self, request: Request) -> Response:
        """Show the page, or a page that says that all places are taken."""
        page = (HERE / ("full.html" if self.full else "app.html")).read_text("utf-8")
        return HTMLResponse(page, 503 if self.full else 200, {"Cache-Control": "no-cache"})

    async def file(self, request: Request) -> Response:
        """Show style or script."""
        name = request.url.path[1:]
        text = (HERE / name).read_text("utf-8")
        return Response(text, media_type=FILES[name], headers={"Cache-Control": "no-cache"})

    async def health(self, request: Request) -> Response:
        """Tell the page that the server lives, how many wait, and what the notice is worth."""
        return reply_json({"waiting": self.waiting, "notice": self.doubt.words()})

    async def about(self, request: Request) -> Response:
        """Tell the page what there is to choose."""
        return Response(self._about, media_type="application/json", headers={"Cache-Control": "no-store"})

    def _describe(self) -> str:
        gallery, table = self.retriever.gallery, self.retriever.select()
        turn = table.groupby("category").cumcount()
        table = table.assign(turn=turn).sort_values(["turn", "category"], kind="stable")  # one of each category first
        samples = [
            {"id": each.query_id, "category": each.category, "picture": f"/samples/{each.row}?g={self.mark}",
             "right": each.outcome == "right" if "outcome" in table else None}
            for each in table.itertuples()
        ]  # fmt: skip
        about = {
            "words": f"{self.words}; gallery {gallery.name}, {len(self.retriever.index):,} shapes.",
            "categories": sorted(set(gallery.shapes.category)), "azimuths": list(self.retriever.azimuths),
            "limits": LIMITS, "most_bytes": MAX_BYTES, "samples": samples,
            "map": self.retriever.known_atlas is not None,
        }  # fmt: skip
        return json.dumps(about)

    async def search(self, request: Request) -> Response:
        """Answer a photo."""
        if self.full:
            raise HTTPException(503, "the app is full", {"Retry-After": "2"})
        self.waiting += 1
        form = None
        try:
            async with asyncio.timeout(PATIENCE):
                form = await request.form(max_files=2, max_fields=10, max_part_size=10_000)
            done = await self.worker.ask(partial(self._answer, form))
        except TimeoutError:
            raise HTTPException(408, f"the photo did not arrive within {PATIENCE} seconds") from None
        finally:
            self.waiting -= 1
            if form is not None:
                await form.close()
        return Response(done, media_type="application/json", headers={"Cache-Control": "no-store"})

    def _answer(self, form: FormData) -> str:
        """Answer on the worker's thread; what waits for it lies in temporary files where it is large."""
        asked = Asked.of({name: value for name, value in form.items() if not isinstance(value, UploadFile)})
        photo, mask = _content(form, "photo"), _content(form, "mask")
        if bool(asked.sample) == bool(photo):
            raise ImageError("send either a photo or the id of a sample", fix="add the field `photo` with a file")
        box = parse_box(asked.box) if asked.box else None
        if photo:
            sent = read_upload(photo[1])
            question = Question(photo[0], sent.photo, sent.mask, sent.sent, how=sent.how)
        else:
            question = self.retriever.stored(stored_row(self.retriever.gallery, asked.sample))
        if mask:
            given = read_mask_upload(mask[1], question.photo)
            question = replace(question, mask=given, stored=None, how=GIVEN)
        choice = Choice(
            asked.marking or best_mask(question, box), box, asked.mirror, asked.top, category=asked.category
        )
        answer = self.retriever.answer(question, choice)
        marked = answer.query.mask if answer.query.mask is not None and not answer.query.mask.all() else None
        areas = {"marked": marked, "guessed": guessed(answer)}
        atlas, height, width = self.retriever.known_atlas, *question.size
        found = Answered(
            **answer.record() | {"results": [self._shape(each, answer) for each in answer.found]},
            size=[width, height], mask_size=list(question.photo.shape[1::-1]),
            **{
                name: None if area is None else data_uri(area.astype(np.uint8) * 255, 1000, lossless=True)
                for name, area in areas.items()
            },
            preview=data_uri(question.photo, 1000) if asked.preview else None,
            verdict=verdict(answer), notices=[*_plain(answer), *filter(None, [self.doubt.notice(answer)])],
            right_shape=answer.own and self._shape(answer.own, answer),
            place=None if atlas is None else atlas.locate(answer.vector).tolist(),
        )  # fmt: skip
        return found.model_dump_json()

    def _shape(self, found: Found, answer: Answer) -> Shape:
        gallery, place = self.retriever.gallery, f"/shapes/{quote(found.shape_id)}"
        row, views = gallery.shapes.iloc[found.row], range(gallery.views.shape[1])
        try:
            mesh = gallery.mesh_path(found.shape_id) and f"{place}/mesh?g={self.mark}"
        except MissingArrayError:
            mesh = ""
        return Shape(
            rank=found.rank, shape_id=found.shape_id, category=found.category, score=found.score,
            right=None if answer.rank is None else found.right, weights=[round(float(w), 6) for w in found.weights],
            name=str(row["name"]), creator=str(row.creator), licence=str(row.licence),
            views=[f"{place}/views/{view}?g={self.mark}" for view in views], mesh=mesh,
        )  # fmt: skip

    def _picture(self, kind: str, row: int, view: int = 0) -> bytes:
        if kind == "photo":
            return webp(np.ascontiguousarray(self.retriever.gallery.images[row][:3].transpose(1, 2, 0)), PHOTO)
        return webp(self.retriever.gallery.views[row, view], PHOTO)

    def sample(self, request: Request) -> Response:
        """Show a test photo."""
        if (row := request.path_params["row"]) not in self.retriever.rows:
            raise HTTPException(404, "there is no such photo")
        return _kept(self.picture("photo", row), "image/webp")

    def view(self, request: Request) -> Response:
        """Show a view of a shape."""
        row, view = self._row(request), request.path_params["view"]
        if view >= self.retriever.gallery.views.shape[1]:
            raise HTTPException(404, "there is no such view")
        return _kept(self.picture("view", row, view), "image/webp")

    def mesh(self, request: Request) -> Response:
        """Give a shape's simplified mesh."""
        path = self.retriever.gallery.mesh_path(self.retriever.index.shape_ids[self._row(request)])
        return _kept(read_limited(path, MODEL_LIMIT, BenchmarkError), "model/gltf-binary")

    def solid(self, request: Request) -> Response:
        """Give a shape's mesh as the page draws it."""
        path = self.retriever.gallery.mesh_path(self.retriever.index.shape_ids[self._row(request)])
        return _kept(solid_json(path).encode(), "application/json")

    def _row(self, request: Request) -> int:
        row = self.retriever.row_of.get(request.path_params["shape_id"])
        if row is None:
            raise HTTPException(404, "there is no such shape")
        return row

    async def map(self, request: Request) -> Response:
        """Give the map of shapes and test photos, and the places of its corners."""
        if self.retriever.known_atlas is None:
            raise HTTPException(404, "this gallery has no map")
        drawn = await self.worker.ask(lambda: self._map)
        low, high = drawn.corners.tolist()
        return reply_json({"picture": drawn.uri, "low": low, "high": high})

    @cached_property
    def _map(self) -> MapPicture:
        return MapPicture(self.retriever.atlas)

    async def openapi(self, request: Request) -> Response:
        """Describe the interface."""
        return reply_json(openapi())


def application(retriever: Retriever, words: str, most_waiting: int = MOST_WAITING) -> tuple[ASGIApp, Worker]:
    """Return the app and the thread that searches for it."""
    pages = Pages(retriever, words, most_waiting)
    routes = [
        Route("/", pages.home), *(Route(f"/{name}", pages.file) for name in FILES), Route("/health", pages.health),
        Route("/about", pages.about), Route("/search", pages.search, methods=["POST"]), Route("/map", pages.map),
        Route("/openapi.json", pages.openapi), Route("/samples/{row:int}", pages.sample),
        Route("/shapes/{shape_id:path}/views/{view:int}", pages.view),
        Route("/shapes/{shape_id:path}/mesh", pages.mesh), Route("/shapes/{shape_id:path}/solid", pages.solid),
    ]  # fmt: skip
    handlers: dict[Any, Any] = {HTTPException: refuse, CMICError: refuse, Exception: refuse}
    return Guard(Starlette(routes=routes, exception_handlers=handlers)), pages.worker


def _kept(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=86400"})


def _content(form: FormData, name: str) -> tuple[str, bytes] | None:
    """Return a file's name and content."""
    file = form.get(name)
    return (str(file.filename)[:100], file.file.read()) if isinstance(file, UploadFile) else None


def _plain(answer: Answer) -> list[str]:
    """Warn of a photo in which nothing is seen."""
    searched = (
        answer.query.image[:3].reshape(3, -1) if answer.query.mask is None else answer.question.photo.reshape(-1, 3).T
    )
    if searched.std(axis=1).max() >= PLAIN:
        return []
    return ["What was searched with is almost one colour, so this ranking says nothing."]
