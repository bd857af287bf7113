/** From numbers to colours, red, green, blue and opacity of one pixel after another. */

import { interpolateRdBu, interpolateViridis } from "d3-scale-chromatic";

export type Rgba = Uint8ClampedArray<ArrayBuffer>;

const VIRIDIS = table(interpolateViridis);
const RED_BLUE = table((t) => interpolateRdBu(1 - t));

/** An image, uint8 with 1 or 3 channels. */
export function ofPixels(pixels: Uint8Array, channels: number): Rgba {
  const rgba = new Uint8ClampedArray((4 * pixels.length) / channels);
  for (let i = 0; i < rgba.length / 4; i++)
    for (let c = 0; c < 4; c++)
      rgba[4 * i + c] = c === 3 ? 255 : pixels[i * channels + (channels === 1 ? 0 : c)];
  return rgba;
}

/** Numbers from 0 up: dark to bright. Without `most`, the largest is brightest. */
export function sequential(values: ArrayLike<number>, most = largest(values)): Rgba {
  return paint(values, VIRIDIS, (value) => value / (most || 1));
}

/** Numbers of both signs: blue below 0, white at 0, red above. */
export function diverging(values: ArrayLike<number>, bound = largest(values, Math.abs)): Rgba {
  return paint(values, RED_BLUE, (value) => 0.5 + value / (2 * bound || 1));
}

/** Three principal components (rows, 3) as red, green and blue, each over its own range. */
export function ofComponents(scores: Float32Array): Rgba {
  const rows = scores.length / 3;
  const rgba = new Uint8ClampedArray(4 * rows).fill(255);
  for (let c = 0; c < 3; c++) {
    const column = Array.from({ length: rows }, (_, i) => scores[3 * i + c]);
    const [low, high] = [-largest(column, (one) => -one), largest(column)];
    column.forEach((one, i) => (rgba[4 * i + c] = 30 + (215 * (one - low)) / (high - low || 1)));
  }
  return rgba;
}

function paint(
  values: ArrayLike<number>,
  colours: number[][],
  place: (one: number) => number,
): Rgba {
  const rgba = new Uint8ClampedArray(4 * values.length).fill(255);
  for (let i = 0; i < values.length; i++) {
    const t = Math.min(255, Math.max(0, Math.round(255 * place(values[i]))));
    rgba.set(colours[t], 4 * i);
  }
  return rgba;
}

function table(colour: (t: number) => string): number[][] {
  return Array.from({ length: 256 }, (_, i) => {
    const text = colour(i / 255);
    const numbers = text.startsWith("#")
      ? [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16))
      : text.match(/\d+/g)!.map(Number);
    return numbers.slice(0, 3);
  });
}

/** The largest number, or the largest of a function of them; of any count of numbers. */
export function largest(values: ArrayLike<number>, of = (value: number) => value): number {
  let most = values.length ? -Infinity : 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, of(values[i]));
  return most;
}
