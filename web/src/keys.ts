/** Where an arrow key leads on a grid of cells from cell `at`; null for other keys. */
export function neighbour(
  key: string,
  at: number,
  { rows, columns }: { rows: number; columns: number },
): number | null {
  const steps: Record<string, [number, number]> = {
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
  };
  if (!(key in steps)) return null;
  const within = (place: number, count: number) => Math.min(count - 1, Math.max(0, place));
  const row = within(Math.floor(at / columns) + steps[key][0], rows);
  return row * columns + within((at % columns) + steps[key][1], columns);
}
