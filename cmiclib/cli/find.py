"""The command `cmic find`: photos, a folder of meshes, an answer to look at."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ImageError, StorageError
from .common import SHIPPED, AutoMask, Exact, IndexPath, JsonFile, RunFolder, open_run, proof, show, write_json

SHAPES = "a folder of mesh files, each of at most 3 million faces, searched to any depth"
KEPT = "where made views and vectors are kept; what is not used for 60 days is removed"


def find(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="photo files")],
    shapes: Annotated[Path, typer.Option(metavar="DIR", help=SHAPES)],
    box: Annotated[str | None, typer.Option(metavar="x0,y0,x1,y1", help="box around the object, in pixels")] = None,
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help="mask image, white on the object")] = None,
    auto_mask: AutoMask = False,
    category: Annotated[
        str | None, typer.Option(help="search only the shapes of this category, the first folder of their path")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="number of shapes to list")] = 10,
    run: RunFolder = SHIPPED,
    up: Annotated[str, typer.Option(help="axis that points up, +x, -x, … -z, or rules: '+y, *.stl=+z'")] = "+y",
    front: Annotated[str, typer.Option(help="axis that the objects' fronts look along, or rules")] = "+z",
    html: Annotated[Path, typer.Option(metavar="FILE", help="the page to write")] = Path("cmic-answer.html"),
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="also draw the answer; one photo only")] = None,
    json_file: JsonFile = None,
    open_page: Annotated[bool, typer.Option("--open", help="show the page in a web browser")] = False,
    cache: Annotated[Path | None, typer.Option(metavar="DIR", show_default="~/.cache/cmic", help=KEPT)] = None,
    jobs: Annotated[int, typer.Option(min=1, help="processes that render")] = 2,
    index: IndexPath = None,
    exact: Exact = False,
) -> None:
    """Find the shape that a photo shows in a folder of meshes; what was made of the folder is kept."""
    if len(photos) > 1 and (mask or box or png):
        raise ImageError("--mask, --box and --png belong to one photo", fix="search for one photo at a time")
    alone = not (mask or box)
    with ThreadPoolExecutor(1) as beside:  # what follows imports for seconds; meanwhile a photo is opened
        first = beside.submit(_open, photos[0], alone)
        from ..browser.answers import answers_page
        from ..browser.retriever import GIVEN, Answer, Choice, Question, Retriever, best_mask, cut
        from ..index import ShapeIndex
        from ..index.cache import gallery_index
        from ..index.query import parse_box
        from ..io.atomic import write_atomically
        from ..io.foreground import own_mask
        from ..io.images import read_mask
        from ..sources import PrepareOptions
        from ..sources.own.kept import cache_folder, keep_gallery
        from ..sources.own.overview import say_overview

    corners = parse_box(box) if box else None
    asked, problems = list[tuple[Path, Question, Choice]](), list[ImageError]()
    for place, photo in enumerate(photos):  # before the gallery is made, which can take long
        try:
            pixels, opaque, turn, own = _open(photo, alone) if place else first.result()
            own = own_mask(pixels, opaque, corners) if corners else own
            given = (read_mask(mask, pixels, turn), GIVEN) if mask else own
            known, how = given or (None, GIVEN)
            question = Question(photo.name, pixels, known, how=how)
            marked = "automatic" if auto_mask and question.mask is None else best_mask(question)
            choice = Choice(marked, corners, top=top, exact=exact)
            cut(question, choice)
            asked.append((photo, question, choice))
        except ImageError as error:
            problems.append(error)
    if problems and not asked:
        raise problems[0]
    left = [f"{error.path or 'a photo'}: {error.problem}" for error in problems]
    weights, cache = open_run(run), cache or cache_folder()
    options = PrepareOptions(size=weights.config.model.image_size, jobs=jobs)
    gallery = keep_gallery(shapes, cache, options, category=category, up=up, front=front)
    left += gallery.left_out
    for line in left:
        typer.echo(f"not taken: {line}", err=True)
    for line in say_overview(gallery.benchmark):
        typer.echo(line, err=True)
    made = ShapeIndex.load(index) if index else gallery_index(weights, gallery.benchmark, progress=True)
    retriever, answers = Retriever(made, gallery.benchmark), list[Answer]()
    for photo, question, choice in asked:
        answer = retriever.answer(question, choice)
        answers.append(answer)
        typer.echo(f"{photo} ({answer.query.how})")
        show(
            ["rank", "score", "file", "category", "best view"],
            [
                [str(each.rank), f"{each.score:.3f}", str(gallery.files[each.shape_id]), each.category,
                 f"{retriever.azimuths[int(each.weights.argmax())]:.0f}°"]
                for each in answer.found
            ],
        )  # fmt: skip
        if said := proof(answer.certified, answer.visited):
            typer.echo(said)
    page = answers_page(answers, gallery.benchmark, gallery.files, left)
    write_atomically(html, lambda temporary: temporary.write_text(page, "utf-8", "replace"))
    typer.echo(f"answer: {html}", err=True)
    if png:
        from ..browser.page import answer_png

        drawn = answer_png(retriever, answers[0])
        write_atomically(png, lambda temporary: temporary.write_bytes(drawn))
    records = [answer.record() for answer in answers]
    for record, (photo, _, _) in zip(records, asked, strict=True):
        record["photo"] = str(photo)
        for result in record["results"]:
            result["file"] = str(gallery.files[result["shape_id"]])
    write_json(json_file, records)
    if open_page:
        import webbrowser

        if not webbrowser.open(html.resolve().as_uri()):
            raise StorageError("no web browser could be started", path=html, fix="open this file yourself")


def _open(photo: Path, alone: bool) -> tuple[Any, Any, Any, Any]:
    """Return what `cmiclib.io.images.open_photo` does and, of a photo ``alone``, without box and mask, its own mask."""
    from ..io.foreground import own_mask
    from ..io.images import open_photo

    pixels, opaque, turn = open_photo(photo)
    return pixels, opaque, turn, own_mask(pixels, opaque) if alone else None
