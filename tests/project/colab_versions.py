"""What Google Colab preinstalls, of the packages that requirements.txt names.

From the package list that Colab publishes (its GPU image, as of 2026-08-19).  To renew: take the
versions from the newer list, change DATE, and run tests/project/test_requirements.py.
"""

DATE = "2026-08-19"
PYTHON = "3.13"
COLAB = {
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "numpy": "2.1.3",
    "matplotlib": "3.10.0",
    "scikit-learn": "1.6.1",
    "scikit-image": "0.25.2",
    "pillow": "11.3.0",
    "accelerate": "1.14.0",
    "safetensors": "0.8.0",
    "tqdm": "4.67.3",
    "ipywidgets": "7.7.1",
    "diffusers": "0.39.0",
    "transformers": "5.15.0",
    "ipykernel": "6.17.1",
    "nbclient": "0.10.4",
    "nbconvert": "7.17.1",
    "nbformat": "5.11.1",
    "packaging": "26.3",
    "pytest": "8.4.2",
}
# what Colab lacks, and only the tests and a local JupyterLab use
ADDITIONS = {"jupyterlab", "nbval", "pytest-xdist", "ruff", "check-jsonschema", "uv"}
