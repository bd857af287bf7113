/** Bytes as text, in base64 with the letters that addresses allow. */

export function decodeBytes(text: string): Uint8Array {
  const letters = text.replaceAll("-", "+").replaceAll("_", "/");
  return Uint8Array.from(atob(letters), (letter) => letter.charCodeAt(0));
}

export function encodeBytes(bytes: Uint8Array): string {
  let letters = "";
  for (const byte of bytes) letters += String.fromCharCode(byte);
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
