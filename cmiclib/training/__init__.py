"""From a configuration and a benchmark to a run folder: the loop, its optimisers, its states."""
