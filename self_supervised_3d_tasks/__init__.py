"""Self-supervised pretraining on 3D and 2D medical scans, and what it brings with few labels.

Importing this package loads neither TensorFlow nor Keras; a name below is imported when it is first used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "algorithms.base": ["Algorithm"],
        "config": ["load_experiment"],
        "errors": ["UserError"],
        "inference": ["predict_case"],
        "models.encoders": ["pyramid_outputs"],
        "transfer": ["load_encoder"],
    },
)
