"""Parallel work in order, where one bad file costs itself only."""

import os

import pytest

from cmiclib.errors import MeshError, SourceError, StorageError
from cmiclib.sources import PrepareOptions, workers
from cmiclib.sources.workers import Defect, attempt_all, results


def halve(number):
    if number % 2:
        raise MeshError(f"{number} is odd", fix="give an even number")
    return number // 2


def divide(number):
    return 6 // number


@pytest.mark.parametrize("threads", [False, True])
def test_results_come_in_order_with_errors_in_their_places(threads):
    with results(halve, iter([4, 3, 2, 0]), "numbers", PrepareOptions(jobs=2, progress=False), threads=threads) as made:
        pairs = list(made)
    assert [item for item, _ in pairs] == [4, 3, 2, 0]
    assert [result for _, result in pairs if not isinstance(result, MeshError)] == [2, 1, 0]
    assert isinstance(pairs[1][1], MeshError) and "3 is odd" in str(pairs[1][1])


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_defect_costs_one_file_and_leaves_its_traceback(jobs):
    with results(divide, [1, 0, 2], "numbers", PrepareOptions(jobs=jobs, progress=False)) as made:
        pairs = list(made)
    assert [pairs[0][1], pairs[2][1]] == [6, 3]
    defect = pairs[1][1]
    assert isinstance(defect, Defect) and "ZeroDivisionError" in defect.trace and "Zero" not in str(defect)


def interrupt(number):
    raise KeyboardInterrupt


def test_a_person_may_end_it():
    with pytest.raises(KeyboardInterrupt):
        attempt_all(interrupt, [0])


def test_an_error_of_the_caller_ends_the_work(recwarn):
    with (
        pytest.raises(StorageError),
        results(halve, range(0, 200, 2), "numbers", PrepareOptions(jobs=2, progress=False)) as made,
    ):
        next(made)
        raise StorageError("full", fix="make room")
    assert not [w for w in recwarn if "tasks" in str(w.message)]


def halved(number):
    if number == 3:
        raise MeshError("odd", path="three.obj")
    return number // 2, os.getpid()


@pytest.mark.slow
def test_a_dask_cluster_does_the_same_in_its_own_processes(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    monkeypatch.setattr(workers, "AT_ONCE", 4)  # several rounds
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.setenv(workers.SCHEDULER, cluster.scheduler_address)
        with results(halved, range(10), "numbers", PrepareOptions(jobs=1, progress=False)) as made:
            found = list(made)
    assert [item for item, _ in found] == list(range(10))
    assert isinstance(found[3][1], MeshError)
    values = [result for _, result in found if not isinstance(result, MeshError)]
    assert [value for value, _ in values] == [0, 0, 1, 2, 2, 3, 3, 4, 4]
    assert os.getpid() not in {process for _, process in values}


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv(workers.SCHEDULER, "tcp://127.0.0.1:9")
    with (
        pytest.raises(SourceError, match=r"CMIC_SCHEDULER|no Dask scheduler answers"),
        results(halved, [1], "numbers", PrepareOptions(jobs=1, progress=False)) as made,
    ):
        list(made)


def test_threads_stay_here_whatever_cluster_there_is(monkeypatch):
    monkeypatch.setenv(workers.SCHEDULER, "tcp://127.0.0.1:9")
    with results(halved, [2, 4], "numbers", PrepareOptions(jobs=2, progress=False), threads=True) as made:
        assert [value for _, (value, _) in made] == [1, 2]
