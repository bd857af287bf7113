/** What the reader has chosen and changed, and what the model makes of it. */

import { decodeBytes } from "./bytes.ts";
import { openModel } from "./engine/load.ts";
import { readLink, writeLink } from "./link.ts";
import { covered, moved } from "./pixels.ts";
import { stationsOf, type Station } from "./stations.ts";
import {
  NOTHING,
  type Edits,
  type Heat,
  type Method,
  type Model,
  type Payload,
  type Trace,
} from "./types.ts";

export interface Shown {
  title: string;
  truth: string | null;
  /** uint8 (height, width, C). */
  pixels: Uint8Array;
}

export type Tool = "look" | "draw" | "cover" | "remove";

class Page {
  readonly payload: Payload;
  readonly model: Model;
  readonly stations: Station[];

  pictures = $state.raw<Shown[]>([]);
  /** Which picture is shown, and which beside it: null for none, the same for it unchanged. */
  chosen = $state(0);
  other = $state<number | null>(null);
  /** The chosen picture as it was drawn on; null where it was not. */
  drawn = $state.raw<Uint8Array | null>(null);
  /** Pixels that the picture is moved to the right and down. */
  shift = $state.raw<[number, number]>([0, 0]);
  edits = $state.raw<Edits>(NOTHING);
  station = $state(0);
  tool = $state<Tool>("look");
  /** What is drawn with: a colour as "#rrggbb", and the brush's radius in pixels. */
  colour = $state("#e03030");
  brush = $state(1);
  /** The token that looks around, by index. */
  query = $state(0);
  /** The class that maps explain; null for the likeliest. */
  label = $state<number | null>(null);

  /** The picture as it was given, and as the model sees it now. */
  original = $derived.by(() => this.pictures[this.chosen].pixels);
  pixels = $derived.by(() => {
    const size = this.payload.image;
    return moved(this.drawn ?? this.original, size, this.shift, this.mean);
  });
  trace: Trace = $derived.by(() => this.model.run(this.pixels, this.edits));
  /** What the model said before anything was changed. */
  before: Trace = $derived.by(() => this.model.run(this.original, NOTHING));
  otherTrace: Trace | null = $derived.by(() => {
    if (this.other === null) return null;
    if (this.other === this.chosen) return this.before;
    return this.model.run(this.pictures[this.other].pixels, this.edits);
  });
  likeliest = $derived.by(() => argmax(this.trace.logits));
  explained = $derived.by(() => this.label ?? this.likeliest);
  /** Maps of what the answer rests on: they follow a moment after the answer. */
  heats = $state.raw<Partial<Record<Method, Heat>>>({});

  constructor(payload: Payload) {
    this.payload = payload;
    const model = (this.model = openModel(payload));
    this.stations = stationsOf(payload, model);
    this.pictures = payload.pictures.map((one) => ({
      title: one.title,
      truth: one.truth,
      pixels: decodeBytes(one.pixels),
    }));
    if (!this.pictures.length) this.addEmpty();
    this.query = this.middle();
    readLink(this);
  }

  /** The mean colour of the training images, 0..255 per channel. */
  get mean(): number[] {
    return this.payload.mean.map((one) => Math.round(255 * one));
  }

  get edited(): boolean {
    return this.drawn !== null || this.shift.some(Boolean) || this.changes > 0;
  }

  /** How much is taken out of the model. */
  get changes(): number {
    const { patches, heads, blocks, channels, positions } = this.edits;
    return patches.length + heads.length + blocks.length + channels.length + Number(positions);
  }

  get link(): string {
    return writeLink(this);
  }

  /** Show a picture, with nothing changed in it. What is taken out of the model stays out. */
  choose(index: number): void {
    this.chosen = index;
    this.drawn = null;
    this.shift = [0, 0];
    this.label = null;
    if (this.other === index) this.other = null;
  }

  /** What brings back all that is chosen and changed now. */
  keep(): () => void {
    const { chosen, other, drawn, shift, edits, station, tool, query, label } = this;
    const kept = { chosen, other, drawn, shift, edits, station, tool, query, label };
    return () => Object.assign(this, kept);
  }

  /** Add a picture and show it. */
  add(one: Shown): void {
    this.pictures = [...this.pictures, one];
    this.choose(this.pictures.length - 1);
  }

  /** Show a picture of the mean colour, to draw on. */
  addEmpty(): void {
    this.add({ title: "an empty picture, to draw on", truth: null, pixels: this.empty() });
    this.tool = "draw";
  }

  /** Set the pixels of a disc to a colour. */
  draw(row: number, column: number, radius: number, colour: number[]): void {
    const { height, width, channels } = this.payload.image;
    const next = this.pixels.slice();
    for (let y = Math.max(0, row - radius); y <= Math.min(height - 1, row + radius); y++)
      for (let x = Math.max(0, column - radius); x <= Math.min(width - 1, column + radius); x++)
        if ((y - row) ** 2 + (x - column) ** 2 <= radius ** 2)
          next.set(colour, (y * width + x) * channels);
    this.redraw(next);
  }

  /** Set the pixels of a square to the mean colour. */
  cover(row: number, column: number, side: number): void {
    this.redraw(covered(this.pixels, this.payload.image, row, column, side, this.mean));
  }

  move(right: number, down: number): void {
    this.shift = [this.shift[0] + right, this.shift[1] + down];
  }

  /** Take one thing out of the model, or put it back. */
  toggle(kind: "patches" | "blocks", index: number): void;
  toggle(kind: "heads" | "channels", name: string): void;
  toggle(kind: "patches" | "blocks" | "heads" | "channels", one: number | string): void {
    const list = this.edits[kind] as (number | string)[];
    const next = list.includes(one) ? list.filter((each) => each !== one) : [...list, one];
    this.edits = { ...this.edits, [kind]: next };
  }

  togglePositions(): void {
    this.edits = { ...this.edits, positions: !this.edits.positions };
  }

  restorePicture(): void {
    this.drawn = null;
    this.shift = [0, 0];
  }

  restore(): void {
    this.restorePicture();
    this.edits = NOTHING;
  }

  private empty(): Uint8Array {
    const { height, width, channels } = this.payload.image;
    const mean = this.mean;
    return Uint8Array.from({ length: height * width * channels }, (_, i) => mean[i % channels]);
  }

  /** The patch in the middle of the grid, as a token. */
  middle(): number {
    const grid = this.model.grid;
    if (!grid) return 0;
    const patch = Math.floor(grid.rows / 2) * grid.columns + Math.floor(grid.columns / 2);
    return grid.prefix.length + patch;
  }

  /** Go to a station by its name. */
  visit(key: string): void {
    this.station = Math.max(
      0,
      this.stations.findIndex((one) => one.key === key),
    );
  }

  private redraw(pixels: Uint8Array): void {
    this.drawn = pixels;
    this.shift = [0, 0];
  }
}

export type { Page };

/** The only one there is. */
export const page = new Page(
  JSON.parse(document.getElementById("payload")!.textContent!) as Payload,
);

/** The index of the largest number. */
export function argmax(numbers: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < numbers.length; i++) if (numbers[i] > numbers[best]) best = i;
  return best;
}

/** The indices of the largest numbers, largest first. */
export function argsort(numbers: ArrayLike<number>): number[] {
  return Array.from(numbers, (_, i) => i).sort((a, b) => numbers[b] - numbers[a]);
}
