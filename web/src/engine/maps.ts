/** Convolutions and their like on maps, a matrix (C, places) with the places' rows and columns. */

import { matmul } from "./matmul.ts";
import { note, Tensor } from "./tensor.ts";

/** A tensor whose columns are places on a grid. */
export interface Grid {
  x: Tensor;
  height: number;
  width: number;
}

/** Where a kernel's steps lie: for each place of the result and each cell of the kernel, a place. */
class Steps {
  readonly height: number;
  readonly width: number;
  /** (cells of the kernel, places of the result): a place of the maps, -1 for one outside. */
  readonly places: Int32Array;

  constructor({ height, width }: Grid, size: number, stride: number, padding: number) {
    this.height = Math.floor((height + 2 * padding - size) / stride) + 1;
    this.width = Math.floor((width + 2 * padding - size) / stride) + 1;
    const count = this.height * this.width;
    this.places = new Int32Array(size * size * count).fill(-1);
    for (let cell = 0; cell < size * size; cell++)
      for (let place = 0; place < count; place++) {
        const row = Math.floor(place / this.width) * stride + Math.floor(cell / size) - padding;
        const column = (place % this.width) * stride + (cell % size) - padding;
        if (row >= 0 && row < height && column >= 0 && column < width)
          this.places[cell * count + place] = row * width + column;
      }
  }
}

const known = new Map<string, Steps>();

function stepsOf(grid: Grid, size: number, stride: number, padding: number): Steps {
  const key = [grid.height, grid.width, size, stride, padding].join();
  if (!known.has(key)) known.set(key, new Steps(grid, size, stride, padding));
  return known.get(key)!;
}

export interface Convolution {
  /** (outputs, inputs / groups * size * size) */
  weight: Float32Array;
  bias: Float32Array | null;
  outputs: number;
  size: number;
  stride: number;
  padding: number;
}

/** A convolution over all channels; no gradient goes back through it. */
export function convolve(maps: Grid, layer: Convolution): Grid {
  const { x } = maps;
  const { weight, bias, outputs, size } = layer;
  const steps = stepsOf(maps, size, layer.stride, layer.padding);
  const [cells, count, inputs] = [size * size, steps.height * steps.width, x.rows * size * size];
  // Every square that the kernel covers becomes a column, and the convolution a product.
  const squares = new Float32Array(inputs * count);
  for (let row = 0; row < inputs; row++) {
    const [channel, cell] = [Math.floor(row / cells) * x.columns, (row % cells) * count];
    for (let i = 0; i < count; i++) {
      const place = steps.places[cell + i];
      if (place >= 0) squares[row * count + i] = x.values[channel + place];
    }
  }
  const y = matmul(weight, squares, outputs, inputs, count);
  if (bias) for (let i = 0; i < y.length; i++) y[i] += bias[Math.floor(i / count)];
  return { x: new Tensor(outputs, count, y), height: steps.height, width: steps.width };
}

/** A convolution of each channel by itself, which keeps the size of the maps. */
export function convolveEach(maps: Grid, layer: Convolution): Grid {
  const { x } = maps;
  const { weight, bias, size } = layer;
  const steps = stepsOf(maps, size, 1, layer.padding);
  const [cells, count] = [size * size, x.columns];
  const y = new Float32Array(x.values.length);
  for (let channel = 0; channel < x.rows; channel++)
    for (let i = 0; i < count; i++) {
      let sum = bias ? bias[channel] : 0;
      for (let cell = 0; cell < cells; cell++) {
        const place = steps.places[cell * count + i];
        if (place >= 0) sum += weight[channel * cells + cell] * x.values[channel * count + place];
      }
      y[channel * count + i] = sum;
    }
  const result = note(new Tensor(x.rows, count, y), (grad) => {
    const slope = x.slope;
    for (let channel = 0; channel < x.rows; channel++)
      for (let i = 0; i < count; i++)
        for (let cell = 0; cell < cells; cell++) {
          const place = steps.places[cell * count + i];
          if (place >= 0)
            slope[channel * count + place] +=
              weight[channel * cells + cell] * grad[channel * count + i];
        }
  });
  return { ...maps, x: result };
}

/** The largest number under a window; no gradient goes back through it. */
export function maxPool(maps: Grid, size: number, stride: number, padding: number): Grid {
  const { x } = maps;
  const steps = stepsOf(maps, size, stride, padding);
  const count = steps.height * steps.width;
  const y = new Float32Array(x.rows * count).fill(-Infinity);
  for (let channel = 0; channel < x.rows; channel++)
    for (let i = 0; i < count; i++)
      for (let cell = 0; cell < size * size; cell++) {
        const place = steps.places[cell * count + i];
        if (place < 0) continue;
        const at = channel * count + i;
        y[at] = Math.max(y[at], x.values[channel * x.columns + place]);
      }
  return { x: new Tensor(x.rows, count, y), height: steps.height, width: steps.width };
}

/** Maps with `right` and `below` more columns and rows of zeros. */
export function padded({ x, height, width }: Grid, right: number, below: number): Grid {
  const [wide, high] = [width + right, height + below];
  const y = Tensor.zeros(x.rows, wide * high);
  for (let channel = 0; channel < x.rows; channel++)
    for (let row = 0; row < height; row++) {
      const from = channel * x.columns + row * width;
      y.values.set(x.values.subarray(from, from + width), channel * wide * high + row * wide);
    }
  return { x: y, height: high, width: wide };
}

/** Maps moved down and to the right; what comes in from outside is 0. */
export function shifted({ x, height, width }: Grid, down: number, right: number): Grid {
  const y = Tensor.zeros(x.rows, x.columns);
  for (let i = 0; i < y.values.length; i++) {
    const [channel, place] = [Math.floor(i / x.columns), i % x.columns];
    const [row, column] = [Math.floor(place / width) - down, (place % width) - right];
    if (row >= 0 && row < height && column >= 0 && column < width)
      y.values[i] = x.values[channel * x.columns + row * width + column];
  }
  return { x: y, height, width };
}

/** Squares of size * size places become one place of as many times the channels. */
export function unshuffle({ x, height, width }: Grid, size: number): Grid {
  const [high, wide] = [height / size, width / size];
  const y = Tensor.zeros(x.rows * size * size, high * wide);
  for (let i = 0; i < y.values.length; i++) {
    const [row, place] = [Math.floor(i / y.columns), i % y.columns];
    const [channel, cell] = [Math.floor(row / (size * size)), row % (size * size)];
    const top = Math.floor(place / wide) * size + Math.floor(cell / size);
    const left = (place % wide) * size + (cell % size);
    y.values[i] = x.values[channel * x.columns + top * width + left];
  }
  return { x: y, height: high, width: wide };
}
