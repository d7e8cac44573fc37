"""Why tracks are together: what sets each cluster apart, and no more than chance does not explain.

The cluster stage calls `explain`, which collects what is known of the tracks. `differences` judges
descriptors, `shares` labels and `terms` words of lyrics; `words` puts their findings into words.
"""
