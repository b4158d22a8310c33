"""What a reader of the notebooks sees: forms, charts, and studies, training and reports to look at.

`page`: how pages look; `forms`: forms made from the settings
`opening`: what a notebook opens with, and the map of the steps
`charts`, `score_charts`, `finding_charts`: figures of studies and training, of scores, and of findings
`viewers`, `dataset_browser`, `training_desk`, `evaluation_desk`, `reading_room`: what the steps show
"""
