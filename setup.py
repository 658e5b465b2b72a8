"""Metadata and dependencies; everything else about the project's tools is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = "self_supervised_3d_tasks"
ROOT = Path(__file__).parent
SOURCE = (ROOT / NAME / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "(.+)"$', SOURCE, re.MULTILINE)[1]
README = ROOT / "README.md"

DEMO = ["nilearn>=0.11"]
DICOM = ["highdicom>=0.28"]
SLURM = ["submitit>=1.5"]
RAY = ["ray>=2.9"]
JAX = ["jax>=0.10,<0.11"]
DEV = [
    "pytest>=8",
    "pytest-xdist",
    "ruff>=0.12",
    "jsonschema",
    "pre-commit",
    "nbclient",
    "ipykernel",
    "setuptools>=77",
    "wheel",
    *DEMO,
    *DICOM,
    *SLURM,
    *JAX,
]

setup(
    name=NAME,
    version=VERSION,
    description="Self-supervised pretraining on 3D and 2D medical scans with Keras 3",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=[NAME, f"{NAME}.*"]), f"{NAME}.configs_json"],
    # The experiment files lie beside the package in a checkout, and inside it where it is installed.
    package_dir={f"{NAME}.configs_json": "configs_json"},
    package_data={f"{NAME}.configs_json": ["README.md", "*.json", "*/*.json", "*/*/*.json"]},
    entry_points={"console_scripts": [f"ss3d = {NAME}.__main__:main"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py",
        "blosc2>=4.14",
        "joblib>=1.3",
        "keras>=3.15,<3.16",
        "matplotlib",
        "nibabel>=5",
        "numpy",
        "pillow>=10.1",
        "psutil",
        "pydantic>=2.10",
        "pydicom>=3",
        "scikit-image",
        "scikit-learn",
        "scipy",
        "simpleitk>=2.3",
        "surface-distance",
        "tensorboard",
        "tensorflow>=2.21,<2.22",
        "tqdm",
    ],
    extras_require={
        "demo": DEMO,
        "dicom": DICOM,
        "slurm": SLURM,
        "ray": RAY,
        "jax": JAX,
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "dev": DEV,
    },
)
