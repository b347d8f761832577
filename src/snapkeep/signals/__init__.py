"""Signals: is what a change list says unusual for its asset, as an attack would be?

    entropy    how random a piece of a file is, and which files are looked at
    features   what of a change list is looked at
    scoring    the features of one list, held against those of the lists before

Pure: it reads nothing and stores nothing. What follows from a suspicion, `snapkeep.operations.suspicion` does.
"""
