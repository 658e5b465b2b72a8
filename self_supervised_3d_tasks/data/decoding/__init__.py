"""What several formats share: stored axes, the files of NIfTI's family, and what is read by SimpleITK."""
