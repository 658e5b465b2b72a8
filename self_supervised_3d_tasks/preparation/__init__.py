"""Data sets made ready for training: one file per data set, ``python prepare.py <file name> --output PATH``.

A file offers these names, and the command line follows from them:

- ``SOURCE``, where there is one: what the folder is called that comes behind the name; ``prepare`` then takes it first.
- ``Options``: a pydantic model; each field becomes a flag with the field's description as help.
- ``prepare(output, options)``: makes ``output``, a folder or file, wholly or not at all.

Files whose names begin with an underscore are parts of the others.
"""
