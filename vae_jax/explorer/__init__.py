"""The explorer: a run as one page that one can look at, listen to and ask."""
