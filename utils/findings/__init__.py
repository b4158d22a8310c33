"""What a report says and what a radiograph shows, finding by finding.

`sentences`: sentences and words, as every reader of reports takes them apart
`reader`: the findings that a text states, by rule, with the words of `lexicon`
`groups`: the findings that are counted, and which of them a text names
`probe`: which findings a radiograph shows, by logistic regression on the frozen vision tower
`plans`: what the heading of a region says that its text is to name
`counts`: which findings reports name rightly: recall, precision and F1, with intervals
"""
