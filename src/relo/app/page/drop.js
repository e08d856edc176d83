// Files that are dragged onto the page; while they are over it, the body has the class `is-dragging`.

export function acceptDrops(take) {
  let depth = 0; // of elements that they are over
  const dragging = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("is-dragging", depth > 0);
  };
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => holdsFiles(event) && dragging(1));
  addEventListener("dragleave", (event) => holdsFiles(event) && dragging(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    dragging(-Infinity);
    if (holdsFiles(event)) take([...event.dataTransfer.files]);
  });
}
