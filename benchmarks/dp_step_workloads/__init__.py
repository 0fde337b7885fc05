"""The workloads of `benchmarks/dp_step.py` by name: one file per family, one line per batch size."""

from dp_step_workloads import adult, dcgan, language_model, lstm_vae, mlp, unet, vae
from dp_step_workloads.workload import Workload

WORKLOADS = {
    "mlp_512": Workload(512, mlp.draw, mlp.jax_model, mlp.torch_model),
    "mlp_2048": Workload(2048, mlp.draw, mlp.jax_model, mlp.torch_model),
    "masked_mlp_512": Workload(512, adult.draw, adult.masked_jax_model, adult.masked_torch_model),
    "masked_mlp_2048": Workload(2048, adult.draw, adult.masked_jax_model, adult.masked_torch_model),
    "transformer_512": Workload(512, adult.draw, adult.transformer_jax_model, adult.transformer_torch_model),
    "vae_512": Workload(512, vae.draw, vae.jax_model, vae.torch_model),
    "dcgan_28x28x1_256": Workload(256, **dcgan.of_shape(28, 28, 1)),
    "dcgan_32x32x3_256": Workload(256, **dcgan.of_shape(32, 32, 3)),
    "unet_64": Workload(64, unet.draw, unet.jax_model, unet.torch_model),
    "language_model_64": Workload(64, language_model.draw, language_model.jax_model, language_model.torch_model),
    "lstm_vae_64": Workload(64, lstm_vae.draw, lstm_vae.jax_model, lstm_vae.torch_model),
}
