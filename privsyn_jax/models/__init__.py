"""Generators by name: one file and one line each."""

from privsyn_jax.models import (
    acgan,
    autoregressive,
    beta_vae,
    block_codes,
    class_gaussian,
    conditional_gan,
    ctgan,
    dcgan,
    diffusion,
    language_model,
    mean_embedding,
    ngram,
    table_diffusion,
    text_vae,
    tvae,
    vae_gan,
    wgan,
    wgan_gp,
)

TABLE_GENERATORS = {
    "autoregressive": autoregressive.make,
    "ctgan": ctgan.make,
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
USES_MARGINALS = frozenset({"autoregressive"})  # purchased ones of columns and of pairs, by `calibrate`
USES_ONE_WAY = frozenset({"ctgan", "table_diffusion"})  # purchased ones of columns alone, by `calibrate`
ONE_SHOT = frozenset({"class_gaussian", "mean_embedding", "ngram"})  # from a few noisy sums, by `stages`; no steps
