// One image of the reader's and all that is known of it.

const THUMB = 160; // pixels of the shorter side: 80 on a screen of two pixels per point

let last = 0;
let reading = Promise.resolve(); // one image is unpacked at a time: fifty photographs at once do not fit into a phone

export class Item {
  constructor(file) {
    this.id = `image-${++last}`;
    this.file = file; // what is sent: the reader's file, or a smaller copy of it
    this.name = file.name;
    this.state = "waiting"; // waiting | sent | answered | failed | stopped
    this.row = null; // the server's answer
    this.asked = null; // the threshold that it was asked with; null: the server's own
    this.trouble = ""; // why there is no answer
    this.size = null; // height, width of the upright image; null: this browser cannot read it
    this.explanations = new Map(); // method and label -> what the server answered; null while it is asked
    this.canShrink = false;
  }

  /** Find the size, and draw the image small on a canvas; resolves in any case. */
  read(canvas) {
    reading = reading.then(async () => {
      const bitmap = await createImageBitmap(this.file).catch(() => null);
      if (bitmap === null) return;
      this.size = [bitmap.height, bitmap.width];
      const scale = THUMB / Math.min(bitmap.width, bitmap.height);
      const [width, height] = [THUMB / scale, THUMB / scale];
      canvas.width = canvas.height = THUMB;
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.imageSmoothingEnabled = scale < 4;
      context.drawImage(bitmap, (bitmap.width - width) / 2, (bitmap.height - height) / 2, width, height, 0, 0, THUMB, THUMB);
      bitmap.close();
    });
    return reading;
  }

  /** Why the server would refuse the image, in a sentence; "" where it would not. */
  excess({ image_bytes: bytes = Infinity, pixels = Infinity }) {
    if (this.file.size > bytes) return `This image has ${mebibytes(this.file.size)}; the server takes ${mebibytes(bytes)} at most, so it was not sent.`;
    if (this.size && this.size[0] * this.size[1] > pixels) {
      return `This image has ${megapixels(this.size[0] * this.size[1])}; the server takes ${megapixels(pixels)} at most, so it was not sent.`;
    }
    return "";
  }

  /** Put a copy in the file's place that keeps the limits; throws Error where that cannot be. */
  async shrink({ image_bytes: bytes = Infinity, pixels = Infinity }) {
    const bitmap = await createImageBitmap(this.file);
    let scale = Math.min(1, Math.sqrt((0.98 * pixels) / (bitmap.width * bitmap.height)));
    for (let attempt = 0; attempt < 8; attempt++, scale *= 0.7) {
      const canvas = new OffscreenCanvas(Math.max(1, Math.floor(bitmap.width * scale)), Math.max(1, Math.floor(bitmap.height * scale)));
      canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      const copy = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
      if (copy.size > bytes) continue;
      this.file = new File([copy], this.name, { type: copy.type });
      this.explanations.clear();
      this.size = [canvas.height, canvas.width];
      bitmap.close();
      return;
    }
    throw new Error("The image cannot be made small enough.");
  }
}

const mebibytes = (n) => `${(n / 2 ** 20).toFixed(1)} MiB`;
const megapixels = (n) => `${(n / 1e6).toFixed(n < 1e6 ? 3 : 1)} million pixels`;
