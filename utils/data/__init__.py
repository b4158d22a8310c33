"""Studies: read from disk (`studies`), downloaded (`sources`) or drawn (`phantoms`), and made a dataset.

`sources`: where studies come from; `downloads` brings archives and unpacks them
`own`: rows of studies of one's own to that layout; `layouts` reads them from tables, `hub` from the Hub
`dicom`: DICOM files as a viewer shows them
`phantoms`: drawn studies, of `anatomy` and `wording`
`hf_dataset`: studies as a Hugging Face dataset, written in `shards`, with a `card`
"""
