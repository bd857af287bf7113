"""A Vision Transformer (Dosovitskiy et al., 2021) in one file: from images to a trained model.

    python examples/vit.py                     scikit-learn's digits, within a minute on a CPU
    python examples/vit.py --data cifar10      a folder of train*.parquet and test*.parquet
    python examples/vit.py --data set.npz      images, labels, test_images, test_labels

An image is cut into square patches, and one linear layer makes each a token: a vector of D numbers.
A further token, CLS, is the same for every image, and a learned vector says where each token is.
In every block, attention lets each token read from all others, then a small network works on each
alone. A linear layer reads the class off the CLS token. Weights have the names of timm and vitlab.

B images  C channels  N patches  T = N + 1 tokens  D width  H heads  d = D / H  K classes
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_model, save_model
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Cuts images (B, C, height, width) into patches and maps each to a token: (B, N, D)."""

    def __init__(self, channels: int, patch_size: int, width: int):
        super().__init__()
        # A convolution whose stride is its kernel size is one linear layer for every patch.
        self.proj = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class PosEmbed(nn.Module):
    """Adds a learned vector to each of the tokens (B, T, D)."""

    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(1, tokens, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.weight


class Attention(nn.Module):
    """Every token takes a mean of all tokens, weighted by how well their keys fit its query."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, H, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)  # (B, H, T, T), rows sum to 1
        return self.proj((weights @ v).transpose(1, 2).flatten(2))  # (B, T, D)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, for each token alone."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Attention mixes tokens, the MLP works on each; both see normalised tokens (B, T, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ViT(nn.Module):
    """Maps normalised images (B, C, height, width) to logits (B, K)."""

    def __init__(
        self, size: int, channels: int, classes: int, patch_size: int, width=64, depth=6, heads=4
    ):
        super().__init__()
        self.patch_embed = PatchEmbed(channels, patch_size, width)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos_embed = PosEmbed(1 + (size // patch_size) ** 2, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        cls = self.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat([cls, self.patch_embed(images)], dim=1)  # (B, T, D)
        tokens = self.norm(self.blocks(self.pos_embed(tokens)))
        return self.head(tokens[:, 0])


def augment(images: Tensor, shift: int) -> Tensor:
    """Shift each image (B, C, height, width) by up to `shift` pixels; mirror half, if in colour."""
    count, channels, height, width = images.shape
    top, left = torch.randint(2 * shift + 1, (2, count, 1))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    if channels == 3:  # photographs may be mirrored, digits may not
        columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    wide = F.pad(images, (shift, shift, shift, shift)).permute(0, 2, 3, 1)
    moved = wide[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]]
    return moved.permute(0, 3, 1, 2)


def train(model: ViT, images: Tensor, labels: Tensor, epochs: int, batch_size=32, lr=2e-3):
    """Fit a model to normalised images (N, C, height, width); yield the mean loss of each epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    steps = len(images) // batch_size
    # The learning rate climbs for a tenth of the steps, then falls along a cosine.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * steps, pct_start=0.1)
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(images))[: steps * batch_size].split(batch_size):
            shifted = augment(images[batch], shift=images.shape[-1] // 8)
            loss = F.cross_entropy(model(shifted), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        yield total / steps


@torch.no_grad()
def accuracy(model: ViT, images: Tensor, labels: Tensor) -> float:
    """Share of images that a model classifies correctly."""
    predicted = torch.cat([model(part).argmax(dim=1) for part in images.split(256)])
    return (predicted == labels).float().mean().item()


def load(data: str | None) -> list[np.ndarray]:
    """Images (N, height, width, C) for training and for the test, then their labels (N,)."""
    if data is None:
        images, labels = load_digits(return_X_y=True)
        return train_test_split(images.reshape(-1, 8, 8, 1), labels, test_size=0.2, random_state=0)
    if data.endswith(".npz"):
        arrays = np.load(data)
        return [arrays[name] for name in ("images", "test_images", "labels", "test_labels")]
    files = [sorted(Path(data).glob(f"{split}*.parquet")) for split in ("train", "test")]
    tables = [pq.read_table(each) for each in files]  # columns: an encoded image, its label
    coded = [(io.BytesIO(each["bytes"]) for each in table[0].to_pylist()) for table in tables]
    images = [np.stack([np.array(Image.open(each)) for each in part]) for part in coded]
    return [*images, *(table[1].to_numpy() for table in tables)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="a folder of Parquet files or an .npz; digits without it")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--weights", help="a .safetensors file to start from")
    parser.add_argument("--save", help="a .safetensors file to write")
    args = parser.parse_args()
    torch.manual_seed(0)
    images, test_images, labels, test_labels = (torch.tensor(each) for each in load(args.data))
    std, mean = torch.std_mean(images.float(), dim=(0, 1, 2))  # of each channel
    images = ((images.float() - mean) / std).permute(0, 3, 1, 2)
    test_images = ((test_images.float() - mean) / std).permute(0, 3, 1, 2)
    size, channels, classes = images.shape[-1], images.shape[1], int(labels.max()) + 1
    model = ViT(size, channels, classes, patch_size=max(2, size // 8))
    if args.weights:
        load_model(model, args.weights)
    for epoch, loss in enumerate(train(model, images, labels.long(), args.epochs), start=1):
        correct = accuracy(model, test_images, test_labels)
        print(f"epoch {epoch:3d}  loss {loss:.4f}  test accuracy {correct:.2%}", flush=True)
    if args.save:
        save_model(model, args.save)


if __name__ == "__main__":
    main()
