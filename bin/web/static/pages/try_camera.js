// A picture of the camera, in a dialog.
import { make } from "/components/charts.js";
import { icon, openDialog } from "../parts.js";
import { word } from "../words.js";

const QUALITY = 0.92;
const REASONS = { NotAllowedError: "try.camera.denied", NotFoundError: "try.camera.none" };

// Returns a promise of a JPEG, or of null where the dialog was closed. Throws an error that says
// why there is no camera and what to do.
export async function takePicture(signal) {
  // browsers give it to pages of this machine and to those with TLS alone
  if (!navigator.mediaDevices?.getUserMedia) throw new Error(word("try.camera.insecure"));
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const reason = REASONS[error.name] || "try.camera.busy";
    throw new Error(word(reason, { why: error.message }));
  }
  const stop = () => media.getTracks().forEach((track) => track.stop());
  return new Promise((resolve) => {
    const video = make("video", { class: "try-video", autoplay: true, playsinline: true });
    video.muted = true;
    video.srcObject = media;
    const closed = () => {
      stop();
      resolve(null);
    };
    const body = openDialog(word("try.camera"), signal, closed);
    const shoot = make("button", { class: "primary", disabled: true, click: async () => {
      const picture = await frameOf(video);
      resolve(picture);
      body.closest("dialog").close();
    } }, icon("camera"), word("try.shoot"));
    video.addEventListener("loadeddata", () => {
      shoot.disabled = false;
      shoot.focus();
    });
    body.append(video, make("div", { class: "buttons" }, shoot));
  });
}

function frameOf(video) {
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
}
