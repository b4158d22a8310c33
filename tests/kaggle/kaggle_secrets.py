"""A stand-in for Kaggle's own module of this name: how it gives a secret, and how it refuses.

`KAGGLE_USER_SECRETS_TOKEN` in the environment is what Kaggle gives a session;
`KAGGLE_SECRETS` is JSON, a secret's name to its answer.
"""

import json
import os


class CredentialError(Exception):
    pass


class BackendError(Exception):
    pass


class UserSecretsClient:
    def __init__(self):
        if os.getenv("KAGGLE_USER_SECRETS_TOKEN") is None:
            raise CredentialError("A JWT Token is required to use the UserSecretsClient, but none found")

    def get_secret(self, label):
        answer = json.loads(os.environ.get("KAGGLE_SECRETS", "{}")).get(label)
        if answer == "no internet":
            raise ConnectionError("Connection error trying to communicate with service.")
        said = f"No user secrets exist for kernel id 1 and label {label}."
        if answer == "broken":
            said = "Internal error"
        if answer in (None, "broken"):
            response = {"errors": [said], "error": {"code": 5}, "wasSuccessful": False}
            raise BackendError(f"Unexpected response from the service. Response: {response}.")
        return answer
