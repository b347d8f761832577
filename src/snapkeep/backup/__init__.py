"""Backups: what goes into a repository, and what comes out of it.

    writer          a full backup, or an incremental one from a parent and a list of changes
    reading         one directory after the other becomes sealed blobs and nodes; the work of many readers
    readers         the readers: threads, or processes with threads
    nodes           trees and their nodes, in restic's text
    metadata        what the file system tells of an object, as a node
    full            a walk over everything
    incremental     from a parent and a list of changes; `worklist` keeps what it must look at
    links           which names a file with several names has, kept between backups
    request         what a backup is asked for, and what it answers
    recovery_point  the ends of every backup: the trees above the share, and the recovery point
    reader          what a recovery point holds
    restore         from a recovery point into a directory

A backup is given a directory (a mounted, read-only snapshot), a parent and a stream of changes; it knows nothing of
systems and shares. The trees that it writes are, byte for byte, those that `restic backup` would write.
"""
