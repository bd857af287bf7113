/** The convolutional controls, as vitlab/models/convnet.py has them, for one image. */

import type { ConvTrace, Edits, ModelConfig } from "../types.ts";
import type { Grid } from "./maps.ts";
import { add, constant, flat, multiply, relu, scaleRows, Tensor, transpose } from "./tensor.ts";
import { halve, reluMaps, sequence, type Weights } from "./weights.ts";

type MapLayer = (maps: Grid) => Grid;
/** A residual block is told whether its branch is taken out. */
type Block = (maps: Grid, out: boolean) => Grid;

interface Stage {
  name: string;
  before: MapLayer | null;
  blocks: Block[];
}

/** What a run of the model leaves, with the maps that Grad-CAM wants the gradient of. */
export interface ConvPass {
  trace: Omit<ConvTrace, "probabilities">;
  logits: Tensor;
  last: Grid;
}

export class ConvNet {
  readonly stages: { name: string; blocks: number[] }[];
  readonly depth: number;
  private readonly layers: Stage[];
  private readonly head: (maps: Grid) => { pooled: Tensor; logits: Tensor };

  constructor(cfg: ModelConfig, weights: Weights) {
    const residual = cfg.kind === "resnet18";
    this.layers = residual ? resnetStages(weights) : [1, 2, 3].map((i) => pair(weights, i));
    this.head = residual ? meanHead(weights) : flatHead(weights);
    let count = 0;
    this.stages = this.layers.map(({ name, blocks }) => ({
      name,
      blocks: blocks.map(() => count++),
    }));
    this.depth = count;
  }

  /** Run the model on a normalised image (C, height * width). */
  run(image: Grid, edits: Edits): ConvPass {
    const stages = constant(() => this.convolve(image, edits)); // Grad-CAM asks what follows them
    const last = stages.at(-1)!;
    const { pooled, logits } = this.head(last);
    return {
      logits,
      last,
      trace: {
        kind: "cnn",
        logits: logits.values,
        stages: stages.map(({ x, height, width }, i) => ({
          name: this.stages[i].name,
          channels: x.rows,
          rows: height,
          columns: width,
          values: x.values,
        })),
        pooled: pooled.values,
      },
    };
  }

  /** The maps that leave each stage. */
  private convolve(image: Grid, edits: Edits): Grid[] {
    let maps = image;
    return this.layers.map(({ name, before, blocks }, i) => {
      if (before) maps = before(maps);
      blocks.forEach((block, j) => {
        maps = block(maps, edits.blocks.includes(this.stages[i].blocks[j]));
      });
      return (maps = without(maps, name, edits.channels));
    });
  }
}

/** Maps with the channels that are taken out at 0. */
function without(maps: Grid, stage: string, channels: string[]): Grid {
  const places = channels.map((name) => name.split(".")).filter(([name]) => name === stage);
  if (!places.length) return maps;
  const kept = new Float32Array(maps.x.rows).fill(1);
  for (const [, channel] of places) kept[Number(channel)] = 0;
  return { ...maps, x: scaleRows(maps.x, kept) };
}

function resnetStages(weights: Weights): Stage[] {
  const stem = sequence([
    weights.convolution("stages.stem.0", 1, 1),
    weights.batchNorm("stages.stem.1"),
    reluMaps,
  ]);
  const later = [1, 2, 3, 4].map((i): Stage => {
    const name = `stage${i}`;
    const blocks = [0, 1].map((j) =>
      basicBlock(weights, `stages.${name}.${j}`, i > 1 && !j ? 2 : 1),
    );
    return { name, before: null, blocks };
  });
  return [{ name: "stem", before: stem, blocks: [] }, ...later];
}

/** Two 3x3 convolutions and a shortcut around them. */
function basicBlock(weights: Weights, at: string, stride: number): Block {
  const branch = sequence([
    weights.convolution(`${at}.conv1`, stride, 1),
    weights.batchNorm(`${at}.bn1`),
    reluMaps,
    weights.convolution(`${at}.conv2`, 1, 1),
    weights.batchNorm(`${at}.bn2`),
  ]);
  const shortcut = weights.has(`${at}.downsample.0.weight`)
    ? sequence([
        weights.convolution(`${at}.downsample.0`, stride),
        weights.batchNorm(`${at}.downsample.1`),
      ])
    : sequence([]);
  return (maps, out) => {
    const past = shortcut(maps);
    return { ...past, x: relu(out ? past.x : add(branch(maps).x, past.x)) };
  };
}

/** Two 3x3 convolutions with ReLU, max-pooling that halves the maps, and a batch norm. */
function pair(weights: Weights, index: number): Stage {
  const at = `stages.stage${index}`;
  const before = sequence([
    weights.convolution(`${at}.0`, 1, 1),
    reluMaps,
    weights.convolution(`${at}.2`, 1, 1),
    reluMaps,
    halve,
    weights.batchNorm(`${at}.5`),
  ]);
  return { name: `stage${index}`, before, blocks: [] };
}

/** The mean of every map, and one linear layer. */
function meanHead(weights: Weights) {
  const linear = weights.linear("head.2");
  return ({ x }: Grid) => {
    const even = new Tensor(x.columns, 1, new Float32Array(x.columns).fill(1 / x.columns));
    const pooled = transpose(multiply(x, even));
    return { pooled, logits: linear(pooled) };
  };
}

/** All numbers of the maps, and three linear layers. */
function flatHead(weights: Weights) {
  const [first, second, third] = ["head.1", "head.3", "head.5"].map((name) => weights.linear(name));
  return ({ x }: Grid) => {
    const pooled = relu(second(relu(first(flat(x)))));
    return { pooled, logits: third(pooled) };
  };
}
