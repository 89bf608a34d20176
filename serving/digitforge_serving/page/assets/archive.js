// Files to download: an .npz archive (a zip file of .npy files, without compression).

const CRC_TABLE = Uint32Array.from({length: 256}, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? byte >>> 1 ^ 0xedb88320 : byte >>> 1;
  return byte;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crc >>> 8 ^ CRC_TABLE[(crc ^ byte) & 255];
  return ~crc >>> 0;
}

/** The bytes of a .npy file, format 1.0. */
function npy(descr, shape, data) {
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${sizes}), }`;
  const length = Math.ceil((10 + text.length + 1) / 64) * 64 - 10;
  const header = new TextEncoder().encode(`${text.padEnd(length - 1)}\n`);
  return joined([[0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, length & 255, length >> 8], header, data]);
}

const npyIntegers = numbers => npy("<i8", [numbers.length], new Uint8Array(BigInt64Array.from(numbers, BigInt).buffer));
const npyNumber = number => npy("<f8", [], new Uint8Array(Float64Array.of(number).buffer));
const npyText = text => npyCharacters([text], []);
const npyTexts = texts => npyCharacters(texts, [texts.length]);
function npyCharacters(texts, shape) {
  const rows = texts.map(text => Array.from(text, character => character.codePointAt(0)));
  const size = Math.max(1, ...rows.map(row => row.length)), codes = new Uint32Array(size * rows.length);
  rows.forEach((row, i) => codes.set(row, i * size));
  return npy(`<U${size}`, shape, new Uint8Array(codes.buffer));
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}

/** Little-endian numbers, given as [size in bytes, value, …]. */
function packed(...fields) {
  const bytes = [];
  for (let i = 0; i < fields.length; i += 2)
    for (let byte = 0; byte < fields[i]; byte++) bytes.push(Math.floor(fields[i + 1] / 256 ** byte) & 255);
  return bytes;
}

/** A zip file of {name: bytes}. */
function zip(files) {
  const parts = [], directory = [];
  let offset = 0;
  for (const [name, bytes] of Object.entries(files)) {
    const encoded = new TextEncoder().encode(name);
    // version needed, flags (UTF-8 name), method 0 (stored), time, date (1980-01-01), CRC, sizes, lengths of name and extra
    const common = packed(2, 20, 2, 0x800, 2, 0, 2, 0, 2, 0x21, 4, crc32(bytes), 4, bytes.length, 4, bytes.length, 2, encoded.length, 2, 0);
    directory.push(packed(4, 0x02014b50, 2, 20), common, packed(2, 0, 2, 0, 2, 0, 4, 0, 4, offset), encoded);
    const local = [packed(4, 0x04034b50), common, encoded, bytes];
    parts.push(...local);
    offset += local.reduce((total, part) => total + part.length, 0);
  }
  const size = directory.reduce((total, part) => total + part.length, 0), count = Object.keys(files).length;
  return joined([...parts, ...directory, packed(4, 0x06054b50, 2, 0, 2, 0, 2, count, 2, count, 4, size, 4, offset, 2, 0)]);
}

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
