r"""The study of the paper: tables, images and texts, models, epsilons, its grid of learning rates and batch sizes.

python -m launch.study --config=configs/studies/paper.py --config.dirs.adult=FOLDER --config.dirs.mnist=FOLDER \
    --config.dirs.cifar10=FOLDER --config.dirs.imdb=FOLDER --workdir=runs/paper
After the name, joined by commas: modalities, data sets and models, for those alone, as in :images,dcgan or
:adult,ctgan,tvae; gpu, for images and texts by larger networks; and smoke, which does all of it with a few quick models
on data that come with the package.

Every model is trained as its own config has it (configs/DATA_MODEL.py), which is the baseline, and as the paper has it:
learning rate 1e-4 or 2e-4, batches of 64 or 128, 200 epochs. Models of a few noisy sums have no such settings. The
number of steps is public, and so is the end of training: nothing looks at the records to stop earlier. Every run draws
10,000 records (images and texts by classes in equal shares), measures them, and ends with the attack by a shadow model.

Adult is split 70/30, as in the paper; MNIST, CIFAR-10 and IMDB keep their published test sets. MIMIC-III needs an
agreement with PhysioNet and is run only where it is named: :mimic3 with --config.dirs.mimic3=FOLDER.
"""

import importlib

from ml_collections import ConfigDict

MODELS = {
    "adult": ("ctgan", "tvae", "gmm_gan", "pate_gan", "wgan", "table_diffusion", "autoregressive", "aim", "mst"),
    "mimic3": ("autoregressive",),
    "mnist": ("dcgan", "acgan", "wgan_gp", "beta_vae", "diffusion", "class_gaussian", "mean_embedding"),
    "cifar10": ("dcgan", "diffusion", "class_gaussian"),
    "imdb": ("text_vae", "language_model", "ngram", "bag_of_words"),
}
MODALITIES = {"tables": ("adult", "mimic3"), "images": ("mnist", "cifar10"), "texts": ("imdb",)}
ONLY_IF_NAMED = ("mimic3",)
METRICS = {
    "tables": (
        "logistic_regression_auc", "logistic_regression_accuracy", "logistic_regression_f1", "boosting_auc",
        "pairwise_total_variation", "mean_emd",
    ),
    "images": ("mean_accuracy", "small_cnn_accuracy", "fid_trained_features"),
    "texts": ("linear_accuracy", "lstm_accuracy", "lstm_f1", "outside_perplexity", "vocabulary_kl"),
}  # fmt: skip
ATTACK = "shadow_posteriors"
ATTACK_METRICS = tuple(f"{ATTACK}_{metric}" for metric in ("auc", "advantage", "tpr_at_fpr_0.01"))
OURS = "own settings"

EMBEDDED = {"adult": "rand_hie", "mnist": "digits", "imdb": "grammar"}  # in place of those that are to be fetched
QUICK = {"adult": ("tvae", "mst"), "mnist": ("dcgan",), "imdb": ("bag_of_words",)}


def get_config(arg=None):
    words = arg.split(",") if arg else []
    flags, chosen = set(words) & {"smoke", "gpu"}, [word for word in words if word not in ("smoke", "gpu")]
    is_smoke = "smoke" in flags
    models = _chosen(QUICK if is_smoke else MODELS, chosen)
    config = ConfigDict()
    config.dirs = ConfigDict(dict.fromkeys(MODELS if is_smoke else models, ""))  # smoke takes the flags of the whole
    config.models = ConfigDict()
    for data, names in models.items():
        for name in names:
            model = _model(data, name, flags)
            model.data.dir = config.dirs.get_ref(data)
            config.models[f"{model.data.name}_{name}"] = model
    config.contestants = {OURS: {}, **(_grid((1e-4,), (64,), 1) if is_smoke else _grid((1e-4, 2e-4), (64, 128), 200))}
    config.baseline = OURS
    config.epsilons = (1.0, float("inf")) if is_smoke else (0.5, 1.0, 2.0, float("inf"))
    config.seeds = (0, 1) if is_smoke else (0, 1, 2, 3, 4)
    modalities = [modality for modality, sets in MODALITIES.items() if set(sets) & set(models)]
    config.metrics = (*(metric for modality in modalities for metric in METRICS[modality]), *ATTACK_METRICS)
    config.tuning = None
    config.attacks = (ATTACK,)
    return config


def _chosen(models, words):
    """Data set -> models, of those that every kind of word leaves; all but ONLY_IF_NAMED without a word."""
    names = {name for of_data in models.values() for name in of_data}
    known = (*MODALITIES, *models, *names)
    for word in words:
        if word not in known:
            raise ValueError(f"config argument {word!r} is unknown: use smoke, gpu or some of {', '.join(known)}")
    sets = [word for word in words if word in models]
    for modality in [word for word in words if word in MODALITIES]:
        sets += [data for data in MODALITIES[modality] if data in models and data not in ONLY_IF_NAMED]
    sets = sets or [data for data in models if data not in ONLY_IF_NAMED]
    wanted = names & set(words) or names
    found = {data: tuple(name for name in models[data] if name in wanted) for data in models if data in sets}
    found = {data: of_data for data, of_data in found.items() if of_data}
    if not found:
        raise ValueError(f"config argument {','.join(words)!r} leaves no model: these data sets have none of that name")
    return found


def _model(data, name, flags):
    is_table = data in MODALITIES["tables"]
    flags = ",".join(flags - {"gpu"} if is_table else flags)
    config = importlib.import_module(f"configs.{data}_{name}").get_config(flags or None)
    config.synthesis.num_samples = 10_000
    if data == "adult":
        config.data.split = "paper"
    if "smoke" in flags:
        config.data.name = EMBEDDED[data]
        config.synthesis.num_samples = 1000
        if is_table:
            config.model.column_order = ()
    return config


def _grid(learning_rates, batch_sizes, epochs):
    return {
        f"learning rate {rate:.0e}, batch {size}".replace("e-0", "e-"): {
            "training/learning_rate": rate,
            "training/generator_learning_rate": 0.0,  # the same
            "training/expected_batch_size": size,
            "training/num_epochs": epochs,
        }
        for rate in learning_rates
        for size in batch_sizes
    }
