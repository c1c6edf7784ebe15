"""How far this library is from the released code: the arrays of ``tests/data/parity``, computed again.

Each row compares one quantity over all cases that the released code was run on. The notes beside the arrays give the
tolerances; the tests hold every case to them.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..color import transfer_color
from ..config import LossConfig
from ..errors import SourceError
from ..io.files import check_regular
from ..losses import cmic_loss
from ..model import attention_scores, attention_weights

LIMIT = 64 << 20  # Bytes of a file, compressed and uncompressed
DARK = ("edge_source", "edge_target", "edge_both")
INPUTS = ("query", "views", "linear_in_weight")
NAMES = {"total": "total", "inst": "instance", "cats": "category"}
Pair = tuple[str, float, Tensor, Tensor]  # quantity, tolerance, the array of the released code, ours
ONE_COLOUR = "edge_target"  # its first target has one colour, so the result is only rounding


def parity_table(folder: str | Path) -> pd.DataFrame:
    """Compare every quantity with the released code's, whose arrays are in the repository's ``tests/data/parity``.

    Returns one row per quantity: ``arrays``, ``absolute`` (the largest difference), ``relative`` (its share of the
    largest value), ``tolerance`` (of the absolute difference), ``agrees``. SourceError where the arrays are missing.
    """
    pairs = [pair for compare in (_colours, _attention, _losses) for pair in compare(Path(folder))]
    quantities, tolerances, theirs, ours = zip(*pairs, strict=True)
    absolute = [(a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)]
    scale = [array.abs().max().item() for array in theirs]
    table = pd.DataFrame({"absolute": absolute, "scale": scale, "tolerance": tolerances})
    rows = table.groupby(list(quantities), sort=False)
    result = rows.max().assign(arrays=rows.size())
    result = result.assign(relative=result.absolute / result.scale, agrees=result.absolute <= result.tolerance)
    return result[["arrays", "absolute", "relative", "tolerance", "agrees"]].rename_axis("quantity")


def _colours(folder: Path) -> Iterator[Pair]:
    arrays = read_arrays(folder / "parity_color.npz")
    for case in ("smooth", *DARK):
        kept = slice(1, None) if case == ONE_COLOUR else slice(None)
        ours = transfer_color(arrays[f"{case}/source"][kept], arrays[f"{case}/target"][kept], "reference")
        name, tolerance = ("colour transfer, dark or saturated", 7e-4) if case in DARK else ("colour transfer", 2e-5)
        yield (name, tolerance, arrays[f"{case}/out"][kept], ours)


def _attention(folder: Path) -> Iterator[Pair]:
    arrays = read_arrays(folder / "parity_attention.npz")
    for case in ("init", "ties", "equal_views"):
        inputs = [arrays[f"{case}/{name}"] for name in INPUTS]
        yield ("weights of the views", 5e-7, arrays[f"{case}/weights"], attention_weights(*inputs))
        yield ("scores", 5e-7, arrays[f"{case}/scores"], attention_scores(*inputs))
    inputs = [arrays[f"train_form/{name}"] for name in INPUTS]
    yield ("scores", 5e-7, arrays["train_form/prod_mat"].T, attention_scores(*inputs))


def _losses(folder: Path) -> Iterator[Pair]:
    arrays = read_arrays(folder / "parity_losses.npz")
    config = LossConfig(zero_losses="dropped")
    for case in sorted({name.partition("/")[0] for name in arrays} - {"chain"}):
        scores = arrays[f"{case}/prod_mat"].T.clone().requires_grad_()
        same = arrays[f"{case}/image_cats_index"][:, None] == arrays[f"{case}/shape_cats_index"][None, :]
        losses = cmic_loss(scores, arrays[f"{case}/inst_index"].long(), same, config)
        for loss, part in zip(losses, ("total", "inst", "cats"), strict=True):
            if f"{case}/loss_{part}" in arrays:  # with a single category there is no category loss
                yield (f"{NAMES[part]} loss", 4e-6, arrays[f"{case}/loss_{part}"].reshape(()), loss.detach())
            wanted = arrays.get(f"{case}/grad_{'total' if part == 'total' else f'loss_{part}'}")
            if wanted is not None and loss.requires_grad:
                (gradient,) = torch.autograd.grad(loss, scores, retain_graph=True)
                yield (f"gradient of the {NAMES[part]} loss", 2e-7, wanted.T, gradient)

    inputs = [arrays[f"chain/{name}"].requires_grad_() for name in INPUTS]
    own, same = arrays["chain/InstsMat"].T, arrays["chain/CatsMat"].T > 0  # (photo, shape)
    total = cmic_loss(attention_scores(*inputs), own.argmax(dim=1), same, config)[0]
    for gradient, name in zip(torch.autograd.grad(total, inputs), INPUTS, strict=True):
        yield ("gradient through the attention", 2e-7, arrays[f"chain/grad_{name}"], gradient)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Read the numeric arrays of an ``.npz`` file; SourceError if it is missing, damaged, or above 64 MB unpacked."""
    fix = "check out tests/data/parity again"
    check_regular(path, SourceError, LIMIT, fix)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LIMIT:
                raise ValueError(f"it unpacks to more than {LIMIT >> 20} MB")
        with np.load(path, allow_pickle=False) as arrays:  # noqa: TID251 (after the limit above)
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files if arrays[name].dtype.kind in "fib"}
    except Exception as error:  # damaged zips and forged headers fail in many ways
        raise SourceError(f"the released code's arrays cannot be read ({error})", path=path, fix=fix) from None
