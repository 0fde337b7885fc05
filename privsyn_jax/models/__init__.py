"""Generators by name: one file and one line each."""

from privsyn_jax.models import (
    acgan,
    autoregressive,
    bayesian_network,
    beta_vae,
    block_codes,
    class_gaussian,
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
    pate_gan,
    table_diffusion,
    text_vae,
    tvae,
    vae_gan,
    wgan,
    wgan_gp,
)

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
USES_ONE_WAY = frozenset({"ctgan", "pate_gan", "table_diffusion", "tvae"})  # of columns alone, by `calibrate`
ONE_SHOT = frozenset(  # from a few noisy sums, by `stages`, or from marginals alone; no steps
    {"aim", "bayesian_network", "class_gaussian", "fitted_marginals", "mean_embedding", "mst", "ngram"}
)
USES_PRIOR = frozenset({"tvae"})  # a noisy sum bought when training is done, by `after`, under the name PRIOR
PRIOR = latent_prior.NAME
PATE = frozenset({"pate_gan"})  # from noisy votes of teachers, by `teaching`
USES_MOMENTS = frozenset({"gmm_gan"})  # purchased noisy sums, by `stages`, to start from
