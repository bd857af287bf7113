/** Changes to images, uint8 (height, width, C), none of which changes its argument. */

export interface Size {
  height: number;
  width: number;
  channels: number;
}

/** Move an image to the right and down; what comes in from outside is of one colour. */
export function moved(
  pixels: Uint8Array,
  { height, width, channels }: Size,
  [right, down]: [number, number],
  colour: number[],
): Uint8Array {
  if (!right && !down) return pixels;
  const next = new Uint8Array(pixels.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const inside = y >= down && y < height + down && x >= right && x < width + right;
      const from = ((y - down) * width + x - right) * channels;
      const values = inside ? pixels.subarray(from, from + channels) : colour;
      next.set(values, (y * width + x) * channels);
    }
  return next;
}

/** Fill a square whose first pixel is (row, column) with one colour. */
export function covered(
  pixels: Uint8Array,
  { height, width, channels }: Size,
  row: number,
  column: number,
  side: number,
  colour: number[],
): Uint8Array {
  const next = pixels.slice();
  for (let y = row; y < Math.min(height, row + side); y++)
    for (let x = column; x < Math.min(width, column + side); x++)
      next.set(colour, (y * width + x) * channels);
  return next;
}

/** Read a picture file of any size and stretch it to the model's: grey or colour as it needs. */
export async function readPicture(
  file: Blob,
  { height, width, channels }: Size,
): Promise<Uint8Array> {
  const picture = await createImageBitmap(file);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d")!;
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  // Halved again and again, every pixel of the picture has its share, as in a proper reduction.
  let [source, w, h]: [CanvasImageSource, number, number] = [
    picture,
    picture.width,
    picture.height,
  ];
  while (w >= 2 * width && h >= 2 * height) {
    const half = new OffscreenCanvas((w = Math.floor(w / 2)), (h = Math.floor(h / 2)));
    half.getContext("2d")!.drawImage(source, 0, 0, w, h);
    source = half;
  }
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  const rgba = context.getImageData(0, 0, width, height).data;
  const pixels = new Uint8Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const rgb = rgba.subarray(4 * i, 4 * i + 3);
    pixels.set(channels === 1 ? [luma(rgb)] : rgb, i * channels);
  }
  return pixels;
}

/** The grey of a colour, as ITU-R 601 weighs red, green and blue. */
export function luma(rgb: ArrayLike<number>): number {
  return Math.round(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]);
}
