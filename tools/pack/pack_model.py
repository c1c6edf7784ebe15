"""Make `data/browser/sweethome.safetensors`, with which the query browser starts before anybody has trained.

    python tools/pack/pack_model.py outputs/demo/runs/RUN

It is an index without the photo encoder's backbone, with the test photos' vectors and their places on the map. The run
must have been trained on the shipped benchmark, with frozen convolutions (the demo's are).
"""

import sys

import torch

from cmiclib.book.runner import commit
from cmiclib.browser.app import SHIPPED
from cmiclib.browser.retriever import Retriever
from cmiclib.index.cache import gallery_index
from cmiclib.sources.sweethome import ROOT, open_sweethome
from cmiclib.training.run import Run


def main(folder: str) -> None:
    """Pack one run."""
    run, benchmark = Run.open(folder), open_sweethome()
    if run.manifest["hash"] != benchmark.hash:
        raise SystemExit(f"{folder} was trained on another state of the benchmark")
    retriever = Retriever(gallery_index(run, benchmark), benchmark)
    table, index = retriever.table, retriever.index
    right = (table.outcome == "right").mean()
    trained = {key: run.environment[key] for key in ("date", "processor", "cores", "accelerator", "seconds")}
    index.about = {
        "benchmark": benchmark.hash, "run": run.path.name, "commit": commit(ROOT), "test photos": len(table),
        "top1": float(right), "trained": trained,
    }  # fmt: skip
    index.extra = {"photos": retriever.embed_photos().half(), "places": torch.from_numpy(retriever.atlas.places)}
    index.save(SHIPPED, without_backbone=True)
    print(f"{SHIPPED.relative_to(ROOT)}: {SHIPPED.stat().st_size / 1e6:.1f} MB, first shape right for {right:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
