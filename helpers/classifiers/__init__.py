"""The yardsticks: classifiers that say what an image shows, and their features for a distance."""
