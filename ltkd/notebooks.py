"""Executing the notebooks from the command line."""

import os
import shutil
import time
from pathlib import Path

from .experiments import Experiment
from .files import read_json, shown, write_atomically
from .options import OPTIONS
from .places import PROJECT, from_user

WIDGET = "application/vnd.jupyter.widget-view+json"


class NotebookError(Exception):
    """A cell of a notebook failed; the message says how, and where the executed copy is."""


def run_all(experiment: Experiment, save: bool = False) -> None:
    """Execute notebooks/01 to 05 on the experiment, with a line for each, then print the results.

    Executed copies go to saved_model/<name>/notebooks/. With `save`, which is for maintainers, the
    outputs are saved in notebooks/ itself, the solutions follow, and the pictures at the head of
    the notebooks are drawn anew.
    """
    files = sorted((PROJECT / "notebooks").glob("0*.ipynb"))
    if save:
        files += sorted((PROJECT / "notebooks" / "solutions").glob("0*.ipynb"))
    copies = experiment.model_folder / "notebooks"
    if not save:  # the notebooks show pictures of the folder beside them
        shutil.copytree(PROJECT / "notebooks/images", copies / "images", dirs_exist_ok=True)
    plan = experiment.schedule
    chosen = {"experiment": experiment.base, "schedule": plan.name, "epochs": plan.epochs}
    chosen |= {o: getattr(experiment, o) for o in OPTIONS if o not in chosen}
    if experiment.folder:  # the kernels work in another folder
        chosen["experiment"] = f"folder:{Path(experiment.folder).resolve()}"
    for place in ("home", "data"):
        if given := os.environ.get(f"LTKD_{place.upper()}"):
            chosen[place] = from_user(given).resolve()
    os.environ.update({f"LTKD_{o.upper()}": str(v) for o, v in chosen.items() if v is not None})
    os.environ["TQDM_DISABLE"] = "1"  # a bar that nobody watches only clutters the saved outputs
    for number, file in enumerate(files, 1):
        title = file.relative_to(PROJECT / "notebooks").with_suffix("")
        print(f"[{number}/{len(files)}] {title} …", end=" ", flush=True)
        start = time.perf_counter()
        execute(file, file if save else copies / file.name)
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    if save:
        from . import covers

        covers.save_all(PROJECT / "notebooks" / "images", experiment)
    _closing_words(experiment, PROJECT / "notebooks" if save else copies)


def execute(file: Path, target: Path) -> None:
    """Execute one notebook in a fresh kernel, in its own folder, and write it to `target`.

    A failing cell stops it with a NotebookError; the copy is written all the same.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    notebook = nbformat.read(file, 4)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only
        store_widget_state=False,  # GitHub's viewer stumbles over it
        resources={"metadata": {"path": str(file.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise NotebookError(
            f"{file.name} stopped with {error.ename}: {error.evalue} The whole of it is in "
            f"{shown(target)}."
        ) from error
    except DeadKernelError as error:
        raise NotebookError(
            f"The kernel of {file.name} died, probably because the memory is full: free some, or "
            f"choose a smaller image_size or data set. What was saved before is kept."
        ) from error
    finally:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # time stamps, different at every run
            if cell.cell_type == "code":
                cell.outputs = without_widgets(cell.outputs)
        notebook.metadata.pop("widgets", None)
        text = nbformat.writes(notebook) + "\n"
        write_atomically(target, lambda out: out.write(text.encode()))


def without_widgets(outputs: list[dict]) -> list[dict]:
    """Drop what only a running kernel can show: GitHub's viewer would print it as an error.

    A slider keeps its still figure; in place of any other widget a sentence stands.

    >>> widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "VBox()"}
    >>> without_widgets([{"data": widget}])
    [{'data': {'text/plain': '(a live widget: run this cell to see it)'}}]
    """
    for output in outputs:
        data = output.get("data", {})
        if data.pop(WIDGET, None) is not None and "image/png" not in data:
            data["text/plain"] = "(a live widget: run this cell to see it)"
    return outputs


def _closing_words(experiment: Experiment, notebooks: Path) -> None:
    from .evaluation import scores, table

    summary = read_json(experiment.results_file)
    print(f"\nTest accuracy in percent, {experiment.name}, {summary['test_images']:,} images:\n")
    print(table(scores(summary)))
    print(
        f"\nModels and results: {experiment.model_folder}\n"
        f"Executed notebooks:  {notebooks}\n"
        f"Next: `make lab` opens the notebooks, `make app` the classifier panel."
    )
