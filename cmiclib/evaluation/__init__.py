"""From a run and a benchmark to numbers: the report, unseen shapes, baselines, the released protocol."""
