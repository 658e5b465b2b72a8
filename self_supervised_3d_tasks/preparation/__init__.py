"""Data sets made ready for training: one file per data set, ``python prepare.py <file name> --output DIR``.

A file offers two names, and the command line follows from them:

- ``Options``: a pydantic model; each field becomes a flag with the field's description as help.
- ``prepare(output, options)``: makes the folder ``output`` wholly or not at all.

Files whose names begin with an underscore are parts of the others.
"""
