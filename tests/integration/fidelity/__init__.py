"""What a user configured survives an update on real engines; what only the old image's defaults put there does not.

Each container is made by the client's own options on an image that says something about everything, is updated by the
real driver to one that says something else about everything, and its whole inspect is compared with the one before, and
with that of a container which the same command makes on the new image. The marks name rows of docs/fidelity.md.
"""
