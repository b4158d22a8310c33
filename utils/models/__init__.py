"""The model: what each base needs (`bases`), one loaded in 4 bits (`loading`), and its reports (`writer`).

`decoding` writes many texts at once, for the writer and for the judge: rows
come and go (`decoding_rows`, with their keys and values in `slots`), and what
a text will go on with is guessed from the texts before it (`drafts`).
"""
