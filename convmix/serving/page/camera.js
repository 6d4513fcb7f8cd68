// A picture of the camera, where the browser has one and allows it: a secure context, that is https or localhost.

const sheet = document.getElementById("camera");
const video = document.getElementById("video");
const shoot = document.getElementById("shoot");
const turn = document.getElementById("turn");
const trouble = document.getElementById("camera-error");
const REASONS = {
  NotAllowedError: "The camera may not be used: allow it in the browser's settings for this page.",
  NotFoundError: "This device has no camera.",
  NotReadableError: "The camera is in use by another program.",
};

let stream = null;
let facing = "environment";
let opening = 0; // counts the attempts: a camera that comes after the dialog was closed is let go

/** Call take([file]) with every picture taken. */
export function listen({ take }) {
  const open = document.getElementById("open-camera");
  if (!navigator.mediaDevices?.getUserMedia) {
    const hasOwnApp = matchMedia("(pointer: coarse)").matches; // a phone opens its camera for a file field, also without https
    open.hidden = !hasOwnApp;
    document.getElementById("no-camera").hidden = hasOwnApp;
    open.addEventListener("click", () => document.getElementById("picture-file").click());
    return;
  }
  open.addEventListener("click", () => {
    sheet.showModal();
    start();
  });
  turn.addEventListener("click", () => {
    facing = facing === "environment" ? "user" : "environment";
    start();
  });
  sheet.addEventListener("close", stop);
  shoot.addEventListener("click", async () => {
    const file = await picture();
    sheet.close();
    take([file]);
  });
}

async function start() {
  stop();
  const attempt = ++opening;
  trouble.textContent = "";
  try {
    const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: { ideal: 1920 } }, audio: false });
    if (attempt !== opening || !sheet.open) {
      opened.getTracks().forEach((track) => track.stop());
      return;
    }
    stream = opened;
    video.srcObject = opened;
    await video.play();
    shoot.disabled = false;
    shoot.focus();
    const devices = await navigator.mediaDevices.enumerateDevices();
    turn.hidden = devices.filter((device) => device.kind === "videoinput").length < 2;
  } catch (error) {
    if (attempt === opening && sheet.open) trouble.textContent = REASONS[error.name] ?? `The camera cannot be used: ${error.message}`;
  }
}

function stop() {
  opening++;
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  video.srcObject = null;
  shoot.disabled = true;
}

async function picture() {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
  return new File([blob], `camera ${time}.jpg`, { type: "image/jpeg" });
}
