"""Image configs through the whole path: downstream accuracy and FID at several epsilons and seeds, beside real data.

python benchmarks/images.py --data-dir FOLDER --json docs/results/images.json --configs mnist_class_gaussian \
    [--epsilons 0.5,1,2,10,inf] [--seeds 0,1,2] [--size gpu] [--quick]

FOLDER holds mnist/ and cifar10/; see config_runs.
"""

from config_runs import main

COLUMNS = (
    "mean_accuracy",
    "small_cnn_accuracy",
    "resnet_accuracy",
    "wide_cnn_accuracy",
    "fid_trained_features",
    "label_agreement",
)

if __name__ == "__main__":
    main("image configs through the whole path", COLUMNS)
