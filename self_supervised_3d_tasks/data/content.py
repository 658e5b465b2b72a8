"""Tells by their voxels that two scans are the same, whatever their files are called and whatever format they have."""

import hashlib

import numpy as np

from self_supervised_3d_tasks.data.volumes import Volume

_NUM_BYTES = 16


def hash_channels(volume: Volume) -> list[str]:
    """Return a hash of each channel of a scan as it was read, as a hexadecimal number.

    It is of the spatial shape and the voxels as float32 on canonical axes, so that it depends neither on the file nor
    on the type that holds them, nor on the other channels. Scans that were cropped, resampled or scaled differ. A
    channel whose voxels are all alike, as that of a sequence that was not acquired, tells nothing and has none.

    Args:
        volume: The image ``(*spatial, channels)``, not yet preprocessed.
    """
    hashes = []
    for number in range(volume.array.shape[-1]):
        channel = np.ascontiguousarray(volume.array[..., number], "<f4") + np.float32(0)  # -0 becomes 0
        if channel.min() != channel.max():
            digest = hashlib.blake2b(repr(channel.shape).encode(), digest_size=_NUM_BYTES)
            digest.update(channel.data)
            hashes.append(digest.hexdigest())
    return hashes
