/** A run's weights by their names, and the layers made of them. */

import { decodeBytes } from "../bytes.ts";
import type { StoredTensor } from "../types.ts";
import { convolve, convolveEach, maxPool, type Convolution, type Grid } from "./maps.ts";
import {
  gelu,
  Linear,
  overRms,
  relu,
  scaleColumns,
  scaleRows,
  standardise,
  type Tensor,
} from "./tensor.ts";

type Layer = (x: Tensor) => Tensor;

export class Weights {
  private readonly bytes: Uint8Array;

  constructor(
    private readonly index: Record<string, StoredTensor>,
    weights: string,
  ) {
    this.bytes = decodeBytes(weights);
  }

  has(name: string): boolean {
    return name in this.index;
  }

  shape(name: string): number[] {
    return this.index[name].shape;
  }

  /** The numbers of a tensor. */
  numbers(name: string): Float32Array {
    const { shape, dtype, offset } = this.index[name];
    const count = shape.reduce((product, one) => product * one, 1);
    const start = this.bytes.byteOffset + offset;
    if (dtype === "float32")
      return new Float32Array(this.bytes.buffer.slice(start, start + 4 * count));
    return Float32Array.from(new Uint16Array(this.bytes.buffer, start, count), half);
  }

  private bias(name: string): Float32Array | null {
    return this.has(`${name}.bias`) ? this.numbers(`${name}.bias`) : null;
  }

  linear(name: string): Layer {
    const [outputs, inputs] = this.shape(`${name}.weight`);
    const layer = new Linear(outputs, inputs, this.numbers(`${name}.weight`), this.bias(name));
    return (x) => layer.apply(x);
  }

  /** LayerNorm or RMSNorm of each row. */
  norm(name: string, eps: number): Layer {
    const scale = this.numbers(`${name}.weight`);
    const shift = this.bias(name);
    if (!shift) return (x) => scaleColumns(overRms(x, eps), scale);
    return (x) => scaleColumns(standardise(x, eps), scale, shift);
  }

  convolution(name: string, stride = 1, padding = 0): (maps: Grid) => Grid {
    const layer = this.kernel(name, stride, padding);
    return (maps) => convolve(maps, layer);
  }

  /** A convolution of each channel by itself. */
  depthwise(name: string): (maps: Grid) => Grid {
    const layer = this.kernel(name, 1, (this.shape(`${name}.weight`)[3] - 1) / 2);
    return (maps) => convolveEach(maps, layer);
  }

  private kernel(name: string, stride: number, padding: number): Convolution {
    const [outputs, , , size] = this.shape(`${name}.weight`);
    const weight = this.numbers(`${name}.weight`);
    return { weight, bias: this.bias(name), outputs, size, stride, padding };
  }

  /** Batch norm by the statistics of its training: a factor and an offset a channel. */
  batchNorm(name: string): (maps: Grid) => Grid {
    const [scale, shift, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map(
      (one) => this.numbers(`${name}.${one}`),
    );
    const factors = scale.map((one, c) => one / Math.sqrt(variance[c] + 1e-5));
    const offsets = shift.map((one, c) => one - mean[c] * factors[c]);
    return onMaps((x) => scaleRows(x, factors, offsets));
  }
}

/** A function of numbers, applied to maps. */
export function onMaps(of: (x: Tensor) => Tensor): (maps: Grid) => Grid {
  return (maps) => ({ ...maps, x: of(maps.x) });
}

export const reluMaps = onMaps(relu);
export const geluMaps = onMaps(gelu);
export const halve = (maps: Grid) => maxPool(maps, 2, 2, 0);

/** One layer after another. */
export function sequence(layers: ((maps: Grid) => Grid)[]): (maps: Grid) => Grid {
  return (maps) => layers.reduce((found, layer) => layer(found), maps);
}

/** A float16 by its 16 bits. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  if (exponent === 0) return sign * 2 ** -24 * fraction;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
}
