"""What every page keeps to."""

import re

from PIL import Image

from utils.pages import forms, opening, viewers
from utils.run import workspace
from utils.settings import TrainingSettings


def test_pages_fetch_nothing_and_run_nothing(tmp_path):
    pages = (
        forms.Form(TrainingSettings()).static(),
        viewers.split_view("Clear.", {"lung": "Clear."}),
        viewers.report_view([Image.new("L", (9, 9))], {}, {}, {}, "offline"),
        opening.overview(workspace.Workspace(tmp_path), "regions"),
    )
    for page in pages:
        assert not re.search(r"<script|@import|url\(|https?://|\son\w+=", page.data)
