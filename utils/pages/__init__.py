"""What a reader of the notebooks sees: forms, charts, and studies, training and reports to look at.

`page`: how pages look; `forms`: forms made from the settings
`opening`: what a notebook opens with, and the map of the steps
`charts`, `score_charts`: figures of studies and training, and of scores
`viewers`, `dataset_browser`, `training_desk`, `reading_room`: one a step
"""
