"""The classifiers of experiments, and the transformations of their training images."""
