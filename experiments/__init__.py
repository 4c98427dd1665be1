"""One file per question; run each as ``python -m experiments.NAME`` from the repository's root."""
