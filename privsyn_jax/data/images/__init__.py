"""Image sources, one file each: MNIST, CIFAR-10, scikit-learn's digits, the user's own, tensorflow-datasets."""
