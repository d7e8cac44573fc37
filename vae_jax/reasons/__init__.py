"""Why tracks are together: what sets each cluster apart, and would not by chance.

`explain`, which `stages/reasons.py` calls, collects what is known of the tracks. `differences`
judges descriptors, `shares` labels and `terms` words of lyrics; `words` says what they have found.
"""
