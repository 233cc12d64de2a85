// Four ways to give an image: drop, file, paste, camera.
import { make } from "/components/charts.js";
import { errorBox, icon } from "../parts.js";
import { word } from "../words.js";
import { takePicture } from "./try_camera.js";

const ACCEPTED = "image/jpeg,image/png,image/webp,image/bmp";

// Returns the area for images; take(blob) is called with each one.
export function imageInput(take, signal) {
  const wrong = make("div");
  const file = make("input", { type: "file", accept: ACCEPTED, hidden: true, change: () => {
    if (file.files.length) receive(file.files[0]);
    file.value = ""; // the same file can be chosen again
  } });
  const choose = make("button", { class: "primary", click: () => file.click() },
    icon("upload"), word("try.choose"));
  const camera = make("button", { click: () => photograph() }, icon("camera"), word("try.camera"));
  const area = make("div", { class: "try-drop" },
    make("p", {}, word("try.drop")), make("div", { class: "buttons" }, choose, camera), file,
    make("p", { class: "hint" }, word("try.formats")));

  function receive(blob) {
    const isImage = blob.type.startsWith("image/");
    wrong.replaceChildren(isImage ? "" : errorBox(new Error(word("try.no.image"))));
    if (isImage) take(blob);
  }

  async function photograph() {
    wrong.replaceChildren();
    try {
      const picture = await takePicture(signal);
      if (picture) take(picture);
    } catch (error) {
      wrong.replaceChildren(errorBox(error));
    }
  }

  // over the whole page, since a browser opens a file that is dropped beside the area
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over");
  }, { signal });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) area.classList.remove("over");
  }, { signal });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    const [first] = event.dataTransfer.files;
    if (first) receive(first);
  }, { signal });
  document.addEventListener("paste", (event) => {
    const [first] = event.clipboardData?.files || [];
    if (!first) return;
    event.preventDefault();
    receive(first);
  }, { signal });
  return make("div", {}, area, wrong);
}
