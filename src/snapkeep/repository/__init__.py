"""Repositories: where recovery points are kept, in restic's open format (version 2), on a disk, on S3 or over SFTP.

    Repository      everything that the rest of Snapkeep needs: add and load blobs, save and list snapshots
    writing         blobs become packs and an index
    backends        where the files lie
    crypto, blobs, packs, unpacked, config, snapshots, locks     the format, one file for each of its parts
    index, segments                                             which blob lies where, without a list in memory

The stock `restic` client checks, mounts and restores what is written here. Everything is synchronous and thread-safe.
"""
