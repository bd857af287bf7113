/** From what Python put into the page to a model that answers. */

import { METHODS, type Edits, type Model, type Payload } from "../types.ts";
import { ConvNet } from "./convnet.ts";
import { explainConvNet, explainViT } from "./explain.ts";
import type { Grid } from "./maps.ts";
import { Tensor } from "./tensor.ts";
import { ViT } from "./vit.ts";
import { Weights } from "./weights.ts";

export function openModel(payload: Payload): Model {
  const weights = new Weights(payload.tensors, payload.weights);
  const convolutional = payload.model.kind === "resnet18" || payload.model.kind === "cnn6";
  return convolutional ? openConvNet(payload, weights) : openViT(payload, weights);
}

function openViT(payload: Payload, weights: Weights): Model {
  const vit = new ViT(payload.model, weights, payload.image.height, payload.image.width);
  return {
    kind: "vit",
    methods: [...METHODS],
    grid: { rows: vit.rows, columns: vit.columns, patch: vit.patch, prefix: vit.prefix },
    depth: vit.depth,
    heads: vit.heads,
    stages: [],
    run(pixels: Uint8Array, edits: Edits) {
      const { trace } = vit.run(normalised(pixels, payload), edits);
      return {
        ...trace,
        probabilities: probabilities(trace.logits, payload),
        lens: trace.lens.map((logits) => probabilities(logits, payload)),
      };
    },
    explain: (pixels, edits, label) => explainViT(vit, normalised(pixels, payload), edits, label),
  };
}

function openConvNet(payload: Payload, weights: Weights): Model {
  const net = new ConvNet(payload.model, weights);
  return {
    kind: "cnn",
    methods: ["grad-cam"],
    grid: null,
    depth: net.depth,
    heads: 0,
    stages: net.stages,
    run(pixels: Uint8Array, edits: Edits) {
      const { trace } = net.run(normalised(pixels, payload), edits);
      return { ...trace, probabilities: probabilities(trace.logits, payload) };
    },
    explain: (pixels, edits, label) =>
      explainConvNet(net, normalised(pixels, payload), edits, label),
  };
}

/** uint8 (height, width, C) to what enters a model, (C, height * width). */
function normalised(pixels: Uint8Array, { image, mean, std }: Payload): Grid {
  const { height, width, channels } = image;
  const x = Tensor.zeros(channels, height * width);
  for (let i = 0; i < pixels.length; i++) {
    const [place, c] = [Math.floor(i / channels), i % channels];
    x.values[c * height * width + place] = (pixels[i] / 255 - mean[c]) / std[c];
  }
  return { x, height, width };
}

/** Of logits (K,) after temperature scaling: a softmax, or of several labels a sigmoid each. */
function probabilities(logits: Float32Array, { task, temperature }: Payload): Float32Array {
  const scaled = logits.map((one) => one / temperature);
  if (task === "multilabel") return scaled.map((one) => 1 / (1 + Math.exp(-one)));
  const most = Math.max(...scaled);
  const powers = scaled.map((one) => Math.exp(one - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((one) => one / sum);
}
