"""What a pretext task with a decoder has learned: are its codes alike where they should be, and does it restore?

A "part" is what the encoder sees of an example, a "whole" the image that the examples are drawn from; several examples
of the same image are its parts. The terms are those of Parts2Whole; any task with a `restorer` has both.
"""
