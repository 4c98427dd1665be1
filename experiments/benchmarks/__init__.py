"""Speed and quality, measured side by side in one run; results lie in ``results/`` with the machine's facts."""
