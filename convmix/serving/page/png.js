// The numbers in a PNG. A canvas gives colours, of 8 bits and changed by palette and profile; a class map needs what is stored.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/** base64 of a grey or palette PNG that is not interlaced -> { width, height, values } row by row. Throws Error for any other. */
export async function numbers(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  if (SIGNATURE.some((value, i) => bytes[i] !== value)) throw new Error("the map is no PNG");
  const view = new DataView(bytes.buffer);
  const packed = [];
  let head = null;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const start = at + 8;
    if (kind === "IHDR") {
      head = { width: view.getUint32(start), height: view.getUint32(start + 4), depth: bytes[start + 8], colour: bytes[start + 9] };
      if (![0, 3].includes(head.colour) || bytes[start + 12] !== 0) throw new Error("the map is not a plain PNG of numbers");
    }
    if (kind === "IDAT") packed.push(bytes.subarray(start, start + length));
    at = start + length + 4;
  }
  if (head === null) throw new Error("the map is no PNG");
  return { width: head.width, height: head.height, values: unpack(unfilter(await inflate(packed), head), head) };
}

async function inflate(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Undo the prediction of every row from its neighbours, in place; the rows without their first byte, which names the filter. */
function unfilter(raw, { width, height, depth }) {
  const stride = Math.ceil((width * depth) / 8);
  const step = Math.max(1, depth / 8);
  const rows = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)];
    const from = y * (stride + 1) + 1;
    const to = y * stride;
    for (let x = 0; x < stride; x++) {
      const left = x >= step ? rows[to + x - step] : 0;
      const up = y > 0 ? rows[to + x - stride] : 0;
      const corner = x >= step && y > 0 ? rows[to + x - stride - step] : 0;
      rows[to + x] = raw[from + x] + [0, left, up, (left + up) >> 1, filter === 4 ? paeth(left, up, corner) : 0][filter];
    }
  }
  return rows;
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

function unpack(rows, { width, height, depth }) {
  if (depth === 8) return rows;
  const stride = Math.ceil((width * depth) / 8);
  const values = new Uint16Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const bit = x * depth;
      const at = y * stride + (bit >> 3);
      values[y * width + x] = depth === 16 ? (rows[at] << 8) | rows[at + 1] : (rows[at] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
    }
  }
  return values;
}
