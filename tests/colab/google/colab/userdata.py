"""Colab's secrets, and the three ways of not getting one."""

import json
import os


class SecretNotFoundError(Exception):
    pass


class NotebookAccessError(Exception):
    pass


class TimeoutException(Exception):
    pass


def get(key):
    answer = json.loads(os.environ.get("COLAB_SECRETS", "{}")).get(key)
    if answer is None:
        raise SecretNotFoundError(f"Secret {key} does not exist.")
    if answer == "no access":
        raise NotebookAccessError(f"Notebook does not have access to secret {key}")
    if answer == "no page":
        raise TimeoutException(
            f"Requesting secret {key} timed out. Secrets can only be fetched from the page."
        )
    if answer == "broken":
        raise RuntimeError(key)
    return answer
