"""Makes the fixtures in published form: `python make.py PACKAGES FOLDER`, on the versions of their time.

PACKAGES is where the packages lie that carry the real vocabularies. In FOLDER come the base models by
their names in the registry, the judge as `green`, and the copies in 4 bits as `copies/<kind>`.
"""

import sys
from pathlib import Path

import judge
import models
import vocabularies

packages, folder = map(Path, sys.argv[1:])
for name in models.LANGUAGES:
    vocabulary = folder / "tokenizers" / name
    vocabularies.save(name, packages, vocabulary)
    models.save(name, vocabulary, folder / name)
models.save_copies(folder / models.COPIED, folder / "copies")
judge.save(packages, folder / "green")
