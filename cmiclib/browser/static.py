"""The browser inside the report: all answers are computed in advance, and the page needs no kernel and no network."""

import json
from collections.abc import Iterable
from html import escape

from .page import HERE, STYLE, MapPicture, Pictures, map_part, model_uri, photo_part, ranking, view_part, viewer_part
from .retriever import Answer, Choice, Retriever, best_mask


def static_page(retriever: Retriever, rows: Iterable[int], top: int = 5) -> str:
    """Return the browser as one piece of HTML with style, script, pictures and meshes, but not the 3D viewer's script.

    It shows the photos in these rows of the benchmark, in this order, each with ``top`` shapes.
    """
    questions = [retriever.stored(int(row)) for row in rows]
    answers = [retriever.answer(question, Choice(best_mask(question), top=top)) for question in questions]
    pictures, card = Pictures(retriever.gallery, once=True), MapPicture(retriever.atlas)
    body = "".join(_answer(answer, pictures, retriever) for answer in answers)
    places = {a.question.name: [round(p, 2) for p in card.percent(retriever.atlas.locate(a.vector))] for a in answers}
    found = {each.row: each.shape_id for answer in answers for each in answer.found}
    shapes = {row: {"name": name, "model": model_uri(retriever.gallery, name)} for row, name in found.items()}
    records = [answer.record() for answer in answers]
    data = {"pictures": pictures.kept, "places": places, "shapes": shapes, "records": records}
    # "</" would end the script element wherever it stands.
    block = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'{STYLE}<div class="cmic" data-cmic-static>{_filters(answers)}{_choices(answers)}{body}'
        f'<div class="cmic-solid"><h4>The model</h4>{viewer_part("", "")}</div><h4>Place on the map</h4>'
        f'{map_part(card.uri, 0, 0)}<script type="application/json">{block}</script></div>'
        f"<script>{(HERE / 'static.js').read_text('utf-8')}</script>"
    )


def _outcome(answer: Answer) -> str:
    return "right" if answer.rank == 1 else "wrong"


def _filters(answers: list[Answer]) -> str:
    lists = {"Category": {answer.question.category for answer in answers}, "First shape": set(map(_outcome, answers))}
    fields = []
    for label, values in lists.items():
        options = "".join(f"<option>{escape(value)}</option>" for value in sorted(values))
        fields.append(f'<label>{label} <select><option value="">all</option>{options}</select></label>')
    return f'<div>{"".join(fields)}<span role="status"></span></div>'


def _choices(answers: list[Answer]) -> str:
    buttons = [
        f'<button type="button" aria-pressed="false" data-photo="{escape(a.question.name)}" '
        f'data-category="{escape(a.question.category)}" data-outcome="{_outcome(a)}">'
        f'<img data-picture="photo {escape(a.question.name)}" alt="Photo {escape(a.question.name)}">'
        f"<span>{escape(a.question.category)}, {'✓' if a.rank == 1 else '✗'}</span></button>"
        for a in answers
    ]
    return f'<div class="cmic-choose" role="group" aria-label="Photos">{"".join(buttons)}</div>'


def _answer(answer: Answer, pictures: Pictures, retriever: Retriever) -> str:
    views = "".join(
        f'<div data-views="{each.rank}" data-shape="{each.row}" hidden>'
        f"{view_part(each, retriever.azimuths, pictures)}</div>"
        for each in answer.found
    )
    return (
        f'<div class="cmic-columns" data-answer="{escape(answer.question.name)}" hidden>'
        f"<div>{photo_part(answer, pictures)}</div>"
        f"<div><h4>Ranking</h4>{ranking(answer, pictures, buttons=True)}{views}</div></div>"
    )
