"""Put prepared benchmarks of one size together, to train one model on all of their photos.

    python tools/pack/join_benchmarks.py --output data/prepared/everything data/prepared/sweethome-… data/prepared/…

Ids get the name of their benchmark in front. Points and voxels stay out, because training does not read them. Test
photos stay out, and so do the training and validation photos of shapes that a benchmark holds out as unseen.
"""

import argparse
from pathlib import Path

from cmiclib.benchmark import Benchmark
from cmiclib.benchmark.writer import BenchmarkWriter


def join(output: Path, parts: list[Benchmark]) -> Benchmark:
    """Write the joined benchmark; a partial one goes on where it stopped."""
    name, hashes = "+".join(part.name for part in parts), [part.hash for part in parts]
    source, licence = ("; ".join(dict.fromkeys(str(part.meta[key]) for part in parts)) for key in ("source", "licence"))
    writer = BenchmarkWriter(
        output, name=name, source=source, licence=licence, size=parts[0].size, protocol=parts[0].protocol,
        extra={"parts": hashes},
    )  # fmt: skip
    with writer:
        for part in parts:
            if part.protocol != writer.protocol:
                raise SystemExit(f"{part.path}: its views were made in another way than those of {parts[0].path}")
            for row, shape in enumerate(part.shapes.to_dict("records")):
                named = shape | {
                    "shape_id": f"{part.name}/{shape['shape_id']}",
                    "group": f"{part.name}/{shape['group']}",
                }
                if writer.needs_shape(named["shape_id"]):
                    writer.add_shape(**{name: str(text) for name, text in named.items()}, views=part.views[row])
            for row, query in enumerate(part.queries.to_dict("records")):
                if query["split"] == "test" or not query.pop("seen"):
                    continue
                name = f"{part.name}/{query.pop('query_id')}"
                query["shape_id"] = "|".join(f"{part.name}/{shape}" for shape in query["shape_id"].split("|"))
                if writer.needs_query(name):
                    writer.add_query(name, **query | {"image": part.images[row], "photo": ""})
        return writer.finish()


def main() -> None:
    """Join the benchmarks of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    joined = join(arguments.output, [Benchmark.open(path) for path in arguments.parts])
    print(f"{len(joined.shapes)} shapes and {len(joined.queries)} photos: {joined.path}")


if __name__ == "__main__":
    main()
