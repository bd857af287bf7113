/** Maps of what an answer rests on, as vitlab/explain has them, for one image and one class. */

import type { Edits, Heat, Method } from "../types.ts";
import type { ConvNet } from "./convnet.ts";
import { matmul } from "./matmul.ts";
import type { Grid } from "./maps.ts";
import { record, type Tensor } from "./tensor.ts";
import type { Pass, ViT } from "./vit.ts";

export function explainViT(
  vit: ViT,
  image: Grid,
  edits: Edits,
  label: number,
): Partial<Record<Method, Heat>> {
  const pass = record(
    () => vit.run(image, edits),
    ({ logits }) => [logits, label],
  );
  const onGrid = (tokens: Float32Array) => toGrid(vit, tokens, image);
  const { attention } = pass;
  const { readout } = pass.trace;
  // A block that tokens pass by has no say, nor has a head that is taken out.
  const used = [...attention.keys()].filter((i) => !edits.blocks.includes(i));
  const open = used.map((i) =>
    attention[i].filter((_, head) => !edits.heads.includes(`${i}.${head}`)),
  );
  const layers = open.filter((heads) => heads.length).map(mean);
  const nowhere = new Float32Array(readout.length);
  const cam = gradCam(vit, pass.tokens[used.at(-1) ?? 0]);
  for (const patch of edits.patches) cam[vit.prefix.length + patch] = 0;
  return {
    attention: onGrid(layers.length ? readOut(readout, layers.at(-1)!) : nowhere),
    rollout: onGrid(readOut(readout, rollOut(layers, readout.length))),
    "gradient-rollout": onGrid(gradientRollout(pass)),
    "grad-cam": onGrid(cam),
  };
}

/** Grad-CAM of a CNN's last maps (Selvaraju et al., 2017). */
export function explainConvNet(
  net: ConvNet,
  image: Grid,
  edits: Edits,
  label: number,
): Partial<Record<Method, Heat>> {
  const { last } = record(
    () => net.run(image, edits),
    ({ logits }) => [logits, label],
  );
  const { x, height, width } = last;
  const values = new Float32Array(x.columns);
  for (let channel = 0; channel < x.rows; channel++) {
    const [from, to] = [channel * x.columns, (channel + 1) * x.columns];
    const slope = x.slope.subarray(from, to).reduce((sum, one) => sum + one, 0) / x.columns;
    for (let i = 0; i < x.columns; i++) values[i] += slope * x.values[from + i];
  }
  return {
    "grad-cam": { rows: height, columns: width, values: values.map((one) => Math.max(0, one)) },
  };
}

/** The mean over heads of attention (T, T). */
function mean(heads: Tensor[]): Float32Array {
  const sum = new Float32Array(heads[0].values.length);
  for (const { values } of heads)
    for (let i = 0; i < sum.length; i++) sum[i] += values[i] / heads.length;
  return sum;
}

/** The weighted mean (T,) of the rows of a matrix (T, T). */
function readOut(weights: Float32Array, matrix: Float32Array): Float32Array {
  return matmul(weights, matrix, 1, weights.length, weights.length);
}

/** Attention rollout: half of each layer's input stays where it is (Abnar and Zuidema, 2020). */
function rollOut(layers: Float32Array[], tokens: number): Float32Array {
  const own = new Float32Array(tokens * tokens);
  for (let i = 0; i < tokens; i++) own[i * tokens + i] = 1;
  return layers.reduce((joined, layer) => {
    const half = layer.map((weight, i) => (weight + own[i]) / 2);
    return matmul(half, joined, tokens, tokens, tokens);
  }, own);
}

/** The rollout of the attention whose growth would raise the class's logit (Chefer et al., 2021). */
function gradientRollout({ attention, trace: { readout } }: Pass): Float32Array {
  let relevance = readout;
  for (const heads of [...attention].reverse()) {
    const helpful = new Float32Array(heads[0].values.length);
    for (const { values, slope } of heads)
      for (let i = 0; i < helpful.length; i++)
        helpful[i] += Math.max(0, values[i] * slope[i]) / heads.length;
    const passed = readOut(relevance, helpful);
    relevance = relevance.map((one, i) => one + passed[i]);
  }
  // What a token is by itself says nothing of where the model looked.
  return relevance.map((one, i) => one - readout[i]);
}

/** Grad-CAM of the tokens that enter the last block. */
function gradCam(vit: ViT, { rows, columns, values, slope }: Tensor): Float32Array {
  const [first, patches] = [vit.prefix.length, rows - vit.prefix.length];
  const weights = new Float32Array(columns);
  for (let i = first * columns; i < rows * columns; i++) weights[i % columns] += slope[i] / patches;
  const map = new Float32Array(rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) map[i] += weights[j] * values[i * columns + j];
    map[i] = Math.max(0, map[i]);
  }
  return map;
}

/** Values of tokens (T,) where their patches lie; in pixels where patches hang over the border. */
function toGrid(vit: ViT, tokens: Float32Array, { height, width }: Grid): Heat {
  const { rows, columns, patch } = vit;
  const values = tokens.slice(vit.prefix.length);
  if (rows * patch === height && columns * patch === width) return { rows, columns, values };
  const pixels = Float32Array.from({ length: height * width }, (_, i) => {
    const [row, column] = [
      Math.floor(Math.floor(i / width) / patch),
      Math.floor((i % width) / patch),
    ];
    return values[row * columns + column];
  });
  return { rows: height, columns: width, values: pixels };
}
