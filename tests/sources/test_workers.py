"""Parallel work in order, where one bad file costs itself only."""

import pytest

from cmiclib.errors import MeshError, StorageError
from cmiclib.sources.workers import attempt, results


def halve(number):
    if number % 2:
        raise MeshError(f"{number} is odd", fix="give an even number")
    return number // 2


def divide(number):
    return 6 // number


@pytest.mark.parametrize("threads", [False, True])
def test_results_come_in_order_with_errors_in_their_places(threads):
    with results(halve, iter([4, 3, 2, 0]), jobs=2, what="numbers", progress=False, threads=threads) as made:
        pairs = list(made)
    assert [item for item, _ in pairs] == [4, 3, 2, 0]
    assert [result for _, result in pairs if not isinstance(result, MeshError)] == [2, 1, 0]
    assert isinstance(pairs[1][1], MeshError) and "3 is odd" in str(pairs[1][1])


def test_a_defect_is_not_taken_for_a_bad_file():
    with pytest.raises(ZeroDivisionError), results(divide, [1, 0], jobs=1, what="numbers", progress=False) as made:
        list(made)
    with pytest.raises(ZeroDivisionError):
        attempt(divide, 0)


def test_an_error_of_the_caller_ends_the_work(recwarn):
    with (
        pytest.raises(StorageError),
        results(halve, range(0, 200, 2), jobs=2, what="numbers", progress=False) as made,
    ):
        next(made)
        raise StorageError("full", fix="make room")
    assert not [w for w in recwarn if "tasks" in str(w.message)]
