"""Dataset and adapter on the Hugging Face Hub, in private repositories.

Only phantoms may go to a repository that is public: IU X-Ray is CC BY-NC-ND, and studies of one's own are
patients'. The token comes from the secret `HF_TOKEN`, goes into requests alone, and is never shown or kept.
"""

from pathlib import Path

from huggingface_hub import HfApi

from utils.data import phantoms
from utils.data.hf_dataset import longest_side_by_path
from utils.regions import tidy
from utils.run.machine import secret
from utils.run.workspace import StepError, Workspace

HOW = (
    "Nothing is shared. To push this to a private repository on the Hugging Face Hub, set SHARE_TO to "
    '"your-name/repository". Add a token with write access to Colab\'s secrets (the key symbol on the left) '
    "or to the environment, with the name HF_TOKEN. Then run this notebook again."
)


def push(repository: str, kind: str, folder: Path, files: list[str], data_label: str) -> str:
    """Commit the files of `folder` that match `files` to a `kind` of repository, private if new; its address.

    Raises StepError without a token, for a public repository unless of phantoms, or where the Hub refuses.
    """
    token = secret("HF_TOKEN")
    if not token:
        raise StepError(f"There is no HF_TOKEN. {HOW.removeprefix('Nothing is shared. ')}")
    api = HfApi(token=token)
    try:
        address = api.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        if not api.repo_info(repository, repo_type=kind).private and data_label != phantoms.WHAT:
            raise StepError(
                f"{repository} is public, and {data_label} may not be published (IU X-Ray is CC BY-NC-ND). "
                "Make the repository private on the Hub, or name another repository in SHARE_TO."
            )
        how = {"repo_id": repository, "repo_type": kind, "allow_patterns": files}
        how["delete_patterns"] = "data/*.parquet"  # of an earlier push, with other shards
        api.upload_folder(folder_path=folder, commit_message=f"A {kind} of {data_label}", **how)
    except StepError:
        raise
    except Exception as error:  # the library lets through whatever its HTTP client raises
        reason = tidy(str(error)).replace(token, "***")
        raise StepError(f"{repository} could not be pushed to the Hub: {reason}") from None
    return str(address)


def share_dataset(workspace: Workspace, repository: str) -> str:
    """Push the dataset of step 2 to `repository`; its address. Raises StepError if it cannot be shared."""
    label, folder = workspace.require("dataset")["data_label"], workspace.folder("dataset")
    if longest_side_by_path(folder):
        raise StepError("The radiographs are not in the dataset (the disk had no room), so it is not shared.")
    return push(repository, "dataset", folder, ["README.md", "data/*.parquet"], label)
