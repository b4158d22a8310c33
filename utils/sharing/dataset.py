"""The dataset of step 2 on the Hub, with the card that lies beside it."""

from utils.data.hf_dataset import longest_side_by_path
from utils.run.workspace import StepError, Workspace

from . import HOW, push

__all__ = ["HOW", "share_dataset"]


def share_dataset(workspace: Workspace, repository: str) -> str:
    """Push the dataset of step 2 to `repository` ("name/repository") as it lies on disk; returns its address.

    Raises StepError where the step is not finished, the radiographs are not in the dataset, or `push` does.
    """
    label, folder = workspace.require("dataset")["data_label"], workspace.folder("dataset")
    if longest_side_by_path(folder):
        raise StepError("The radiographs are not in the dataset (the disk had no room), so it is not shared.")
    return push(repository, "dataset", folder, ["README.md", "data/*.parquet"], label)
