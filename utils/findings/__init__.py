"""What a report says and what a radiograph shows, finding by finding.

`reader`: the findings that a text states, by rule, with the words of `lexicon`
`groups`: the findings that are counted, and which of them a text names
`counts`: which findings reports name rightly: recall, precision and F1, with intervals
"""
