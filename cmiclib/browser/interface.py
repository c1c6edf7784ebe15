"""What `POST /search` is asked and answers; these models read the fields, write the answer and describe both."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import models_json_schema

from .. import __version__
from ..errors import ImageError
from .upload import FORMATS, MAX_BYTES, MAX_PIXELS

LIMITS = f"{', '.join(FORMATS)}; at most {MAX_BYTES // 1_000_000} MB and {MAX_PIXELS // 1_000_000} million pixels"


class Asked(BaseModel):
    """What a search is asked, beside the files ``photo`` and ``mask``."""

    model_config = ConfigDict(extra="forbid")

    sample: str = Field("", description="id of one of the gallery's test photos, instead of a photo")
    box: str = Field("", description="x0,y0,x1,y1 around the object, in pixels of the upright photo")
    marking: Literal["", "given", "automatic", "none"] = Field(
        "", description="the given mask or the photo's own, one by GrabCut, or none; default: given where there is one"
    )
    top: int = Field(8, ge=1, le=50, description="number of shapes")
    category: str = Field("", description="search only the shapes of this category")
    mirror: bool = Field(False, description="mirror the photo")
    preview: bool = Field(False, description="return the photo as a picture that every web browser shows")

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Asked":
        """Read a form's fields; ImageError names the first that cannot be used."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            name = ".".join(map(str, first["loc"]))
            raise ImageError(f"the field `{name:.60}`: {first['msg']:.200}", fix="see /openapi.json") from None


class Shape(BaseModel):
    """A shape of the answer."""

    rank: int
    shape_id: str
    category: str
    score: float
    right: bool | None = Field(description="null: not known here")
    weights: list[float] = Field(description="how much each view counted; they sum to 1")
    name: str
    creator: str
    licence: str
    views: list[str] = Field(description="addresses of the views' pictures")
    mesh: str = Field(description="address of the GLB; empty: there is none")


class Answered(BaseModel):
    """The answer of a search."""

    photo: str
    object: str = Field(description="what marked the object, in words")
    mask: str = Field(description="given, automatic or none")
    box: list[float] | None
    mirrored: bool
    size: tuple[int, int] = Field(description="width and height in which boxes are given")
    mask_size: tuple[int, int] = Field(description="width and height of a mask for this photo")
    marked: str | None = Field(description="the mask that was used, as a data URI")
    guessed: str | None = Field(description="where the learnt silhouette sees the object in the box, as a data URI")
    preview: str | None
    own: list[str] = Field(description="ids of the right shapes, where they are known")
    rank: int | None = Field(description="of the best right shape")
    margin: float | None = Field(description="its score minus that of the best wrong one")
    lead: float | None = Field(description="the first score minus the second")
    certified: bool
    visited: int
    verdict: str
    notices: list[str] = Field(description="what speaks against the answer")
    results: list[Shape]
    right_shape: Shape | None = Field(description="the best right shape, wherever it lies")
    place: list[float] | None = Field(description="on the map of /map")


class Problem(BaseModel):
    """What went wrong, and what helps."""

    problem: str
    fix: str


def openapi() -> dict[str, Any]:
    """Return the description of the interface."""
    kept = [(Asked, "validation"), (Answered, "serialization"), (Problem, "serialization")]
    _, made = models_json_schema(kept, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    schemas, file = made["$defs"], {"type": "string", "format": "binary"}
    asked = schemas.pop("Asked")
    asked["properties"]["photo"] = file | {"description": LIMITS}
    asked["properties"]["mask"] = file | {"description": "white where the object is, of the photo's size"}

    def reply(words: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
        return {"description": words, "content": {kind: {"schema": schema}}}

    def picture(summary: str, kind: str, **path: str) -> dict[str, Any]:
        names = [{"name": n, "in": "path", "required": True, "schema": {"type": t}} for n, t in path.items()]
        replies = {"200": reply("its content", file, kind), "404": reply("there is none", problem)}
        return {"get": {"summary": summary, "parameters": names, "responses": replies}}

    answer, problem = ({"$ref": f"#/components/schemas/{name}"} for name in ("Answered", "Problem"))
    problems = {"400": "it cannot be used", "413": "too many bytes", "503": "full: try again in a moment"}
    search = {
        "summary": "Rank the gallery's shapes for a photo",
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": asked}}},
        "responses": {"200": reply("the answer", answer)} | {c: reply(w, problem) for c, w in problems.items()},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "cmic: find the shape in a photo", "version": __version__},
        "paths": {
            "/search": {"post": search},
            "/shapes/{shape_id}/views/{view}": picture("A view", "image/webp", shape_id="string", view="integer"),
            "/shapes/{shape_id}/mesh": picture("The simplified mesh", "model/gltf-binary", shape_id="string"),
        },
        "components": {"schemas": schemas},
    }
