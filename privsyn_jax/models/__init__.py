"""Generators by name: one file and one line each; or one of your own, by its import path, see `models.own`."""

from collections.abc import Callable

from privsyn_jax.models import (
    acgan,
    autoregressive,
    bayesian_network,
    beta_vae,
    block_codes,
    class_gaussian,
    code_mixture,
    conditional_gan,
    ctgan,
    dcgan,
    diffusion,
    fitted_marginals,
    gmm_gan,
    language_model,
    latent_prior,
    markov_field,
    mean_embedding,
    ngram,
    own,
    pate_gan,
    table_diffusion,
    text_vae,
    told_column,
    tvae,
    vae_gan,
    wgan,
    wgan_gp,
)
from privsyn_jax.types import Generator

TABLE_GENERATORS = {
    "aim": markov_field.make_aim,
    "autoregressive": autoregressive.make,
    "bayesian_network": bayesian_network.make,
    "ctgan": ctgan.make,
    "fitted_marginals": fitted_marginals.make,
    "gmm_gan": gmm_gan.make,
    "mst": markov_field.make_mst,
    "pate_gan": pate_gan.make,
    "table_diffusion": table_diffusion.make,
    "tvae": tvae.make,
    "wgan": wgan.make,
}
IMAGE_GENERATORS = {
    "acgan": acgan.make,
    "beta_vae": beta_vae.make,
    "block_codes": block_codes.make,
    "class_gaussian": class_gaussian.make,
    "conditional_gan": conditional_gan.make,
    "dcgan": dcgan.make,
    "diffusion": diffusion.make,
    "mean_embedding": mean_embedding.make,
    "vae_gan": vae_gan.make,
    "wgan_gp": wgan_gp.make,
}
TEXT_GENERATORS = {
    "language_model": language_model.make,
    "ngram": ngram.make,
    "text_vae": text_vae.make,
}
GENERATORS = {**TABLE_GENERATORS, **IMAGE_GENERATORS, **TEXT_GENERATORS}
USES_MARGINALS = frozenset(  # purchased ones of columns and of several together, by `calibrate`
    {"aim", "autoregressive", "bayesian_network", "fitted_marginals", "mst"}
)
USES_ONE_WAY = frozenset({"pate_gan", "table_diffusion", "tvae", "wgan"})  # of columns alone, by `calibrate`
ONE_SHOT = frozenset(  # from a few noisy sums, by `stages`, or from marginals alone; no steps
    {"aim", "bayesian_network", "class_gaussian", "fitted_marginals", "mean_embedding", "mst", "ngram"}
)
USES_PRIOR = frozenset({"tvae"})  # a noisy sum bought when training is done, by `after`, under the name PRIOR
PRIOR = latent_prior.NAME
PATE = frozenset({"pate_gan"})  # from noisy votes of teachers, by `teaching`
SUMS_OF_TABLES = {  # name of the noisy sum that is purchased, by `stages`, to start from
    "ctgan": told_column.NAME,
    "gmm_gan": code_mixture.NAME,
}


def make_of(name: str) -> Callable[..., Generator]:
    """The function that makes a generator: of the name in GENERATORS, or your own, named "module:function"."""
    return own.make_function(name) if is_own(name) else GENERATORS[name]


def kind_of(name: str) -> str:
    """What the generator makes: "tables", "images" or "texts"."""
    if is_own(name):
        return own.kind_of(make_of(name), name)
    return "tables" if name in TABLE_GENERATORS else "images" if name in IMAGE_GENERATORS else "texts"


def is_own(name: str) -> bool:
    return ":" in name
