// Where images come from: dropped, pasted, or chosen in a dialog.

const MAYBE_IMAGE = /\.(jpe?g|png|gif|webp|bmp|tiff?|avif|heic|jp2|ppm|pgm|tga|npy)$/i; // a system may not know the type of a file

/** Call take(files) with the images, and refuse(names) with what is none. */
export function listen({ take, refuse }) {
  const picker = document.getElementById("files");
  const fallback = document.getElementById("picture-file");
  const sort = (files) => {
    const [images, others] = [[], []];
    for (const file of files) (file.type.startsWith("image/") || MAYBE_IMAGE.test(file.name) ? images : others).push(file);
    if (others.length) refuse(others.map((file) => file.name));
    if (images.length) take(images);
  };
  document.getElementById("choose").addEventListener("click", () => picker.click());
  for (const input of [picker, fallback]) {
    input.addEventListener("change", () => {
      sort(input.files);
      input.value = ""; // the same file may be chosen again
    });
  }

  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    sort(files.map((file) => (file.name ? file : new File([file], "pasted.png", { type: file.type }))));
  });

  const root = document.documentElement;
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault(); // else the browser opens the file
    event.dataTransfer.dropEffect = "copy";
    root.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) root.classList.remove("over");
  });
  addEventListener("drop", (event) => {
    root.classList.remove("over");
    if (!carriesFiles(event)) return;
    event.preventDefault();
    sort(event.dataTransfer.files);
  });
}
