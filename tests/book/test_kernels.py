"""Forked kernels behave as new ones: folder, environment, signals, effort."""

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from cmiclib.book.kernels import ForkedKernelManager, PlainKernelManager, counting, end_all

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)


def run(folder: Path, *cells: str, manager: type[ForkedKernelManager] = ForkedKernelManager) -> list[str]:
    """Run cells in a kernel of their own; return what each printed."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(
        notebook, kernel_name="python3", kernel_manager_class=manager,
        resources={"metadata": {"path": str(folder)}}, extra_arguments=["--log-level=CRITICAL"], startup_timeout=300,
    )  # fmt: skip
    client.execute()
    return ["".join(out.get("text", "") for out in cell.outputs).strip() for cell in notebook.cells]


def test_a_forked_kernel_has_its_own_state_folder_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    printed = (
        "import os, sys; print(os.getcwd(), os.environ.get('CMIC_TEST'), 'torch' in sys.modules, 'x' in globals())"
    )
    monkeypatch.setenv("CMIC_TEST", "first")
    assert run(tmp_path, printed, "x = 1") == [f"{tmp_path} first True False", ""]
    monkeypatch.setenv("CMIC_TEST", "second")
    (tmp_path / "inner").mkdir()
    assert run(tmp_path / "inner", printed)[0] == f"{tmp_path / 'inner'} second True False"


def test_it_computes_on_several_threads_and_says_what_it_used(tmp_path: Path):
    manager, other = counting(), counting()
    code = "import torch; a = torch.ones(900, 900)\nfor _ in range(20): b = a @ a\nprint(b[0, 0].item())"
    assert run(tmp_path, code, manager=manager) == ["900.0"]
    spent = manager.used
    assert 0.1 < spent["user_seconds"] < 60 and spent["system_seconds"] >= 0 and spent["page_faults"] > 100
    assert set(other.used.values()) == {0.0}, "each counts its own kernels"


def test_a_killed_kernel_is_an_error_and_the_next_one_runs(tmp_path: Path):
    manager = counting()
    with pytest.raises(DeadKernelError):
        run(tmp_path, "import os; os.kill(os.getpid(), 9)", manager=manager)
    assert set(manager.used.values()) == {0.0}
    assert run(tmp_path, "print(2 + 2)") == ["4"]


SLEEP = "from pathlib import Path; Path('{}').touch(); import time\ntry: time.sleep(600)\nfinally: Path('{}').unlink()"


@pytest.mark.parametrize("manager", [ForkedKernelManager, PlainKernelManager])
@pytest.mark.parametrize("kill", [False, True])
def test_who_waits_for_a_kernel_in_another_thread_is_released(tmp_path: Path, kill: bool, manager):
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(run, tmp_path, SLEEP.format(name, name), manager=manager) for name in "ab"]
        while len(list(tmp_path.iterdir())) < 2 and not any(each.done() for each in waiting):
            time.sleep(0.05)
        end_all(kill or any(each.done() for each in waiting))  # one that could not start is told below
        for each in waiting:
            with pytest.raises(DeadKernelError if kill or manager is PlainKernelManager else CellExecutionError):
                each.result(timeout=60)
    if manager is ForkedKernelManager:
        assert len(list(tmp_path.iterdir())) == (2 if kill else 0), "an interrupted cell cleans up"


def test_interrupting_stops_a_cell(tmp_path: Path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import time; time.sleep(600)")])
    client = NotebookClient(
        notebook, kernel_name="python3", kernel_manager_class=ForkedKernelManager, timeout=2, interrupt_on_timeout=True,
        extra_arguments=["--log-level=CRITICAL"], allow_errors=True,
    )  # fmt: skip
    started = time.monotonic()
    client.execute()
    assert time.monotonic() - started < 120
    assert notebook.cells[0].outputs[-1].ename == "KeyboardInterrupt"


def test_a_figure_that_ends_a_cell_is_a_picture(tmp_path: Path):
    cells = [
        "from cmiclib import figures\nimport matplotlib.pyplot as plt",
        "plt.subplots()[0]",
        "_ = plt.plot([1, 2])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(
        notebook, kernel_name="python3", kernel_manager_class=ForkedKernelManager,
        extra_arguments=["--log-level=CRITICAL"],
    ).execute()  # fmt: skip
    for cell in notebook.cells[1:]:
        assert any("image/png" in out.get("data", {}) for out in cell.outputs), cell.outputs
