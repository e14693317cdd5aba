"""A variational autoencoder around an encoder and a decoder, by the name of high-order-layers-torch."""

from typing import Any

import torch
from torch import Tensor, nn

from .checks import count


class VanillaVAE(nn.Module):
    """Normal latent variables [B, latent_dim] between the encoder's features and the decoder's channels.

    encoder: from images to features, with `output_size`; decoder: from [B, `in_channels`, 1, 1] to images.
    TypeError where these attributes are missing. An nn.Module, where the peer's is a LightningModule.
    Source: high-order-layers-torch; Kingma and Welling, Auto-Encoding Variational Bayes, 2014.
    """

    def __init__(self, latent_dim: int, encoder: nn.Module, decoder: nn.Module, **ignored: Any) -> None:
        super().__init__()
        self.latent_dim = count("latent_dim", latent_dim)
        features = count("encoder.output_size", getattr(encoder, "output_size", None))
        self.in_channels = count("decoder.in_channels", getattr(decoder, "in_channels", None))
        self.encoder = encoder
        self.fc_mu = nn.Linear(features, latent_dim)
        self.fc_var = nn.Linear(features, latent_dim)
        self.decoder = decoder
        self.decoder_input = nn.Linear(latent_dim, self.in_channels)

    def encode(self, input: Tensor) -> list[Tensor]:
        """Mean and logarithm of the variance of the latent variables of images, each [B, latent_dim]."""
        features = self.encoder(input).flatten(1)
        return [self.fc_mu(features), self.fc_var(features)]

    def decode(self, z: Tensor) -> Tensor:
        """Images of latent variables [B, latent_dim]."""
        y: Tensor = self.decoder(self.decoder_input(z).view(-1, self.in_channels, 1, 1))
        return y

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Draw latent variables of that mean and logarithm of the variance, with gradients to both."""
        deviation = torch.exp(0.5 * logvar)
        return torch.randn_like(deviation) * deviation + mu

    def forward(self, input: Tensor, **ignored: Any) -> list[Tensor]:
        """[decoded images, input, mean, logarithm of the variance], as `loss_function` takes them."""
        mu, logvar = self.encode(input)
        return [self.decode(self.reparameterize(mu, logvar)), input, mu, logvar]

    def loss_function(
        self, recons: Tensor, input: Tensor, mu: Tensor, log_var: Tensor, *, M_N: float, **ignored: Any
    ) -> dict[str, Tensor]:
        """loss = mean squared error + M_N times the mean Kullback-Leibler divergence from N(0, 1).

        M_N is usually the batch's share of the data. Beside it, without gradients: "Reconstruction_Loss", and
        "KLD", the divergence with a minus, as by the peer.
        """
        error = nn.functional.mse_loss(recons, input)
        divergence = (-0.5 * (1 + log_var - mu**2 - log_var.exp()).sum(1)).mean(0)
        loss = error + M_N * divergence
        return {"loss": loss, "Reconstruction_Loss": error.detach(), "KLD": -divergence.detach()}

    def sample(self, num_samples: int, **ignored: Any) -> Tensor:
        """Images of num_samples latent variables drawn from N(0, 1)."""
        like = self.decoder_input.weight
        return self.decode(torch.randn(num_samples, self.latent_dim, device=like.device, dtype=like.dtype))

    def generate(self, x: Tensor, **ignored: Any) -> Tensor:
        """Images x encoded, drawn and decoded again."""
        return self.forward(x)[0]
