// A file that is too large stays in the browser: the websocket would drop it without a word, and
// the connection with it. Each of the others travels in a message of its own.
function render({ model, el }) {
  const input = document.createElement("input");
  input.type = "file";
  input.accept = "image/*";
  input.multiple = true;
  input.hidden = true;
  const button = document.createElement("button");
  button.className = "jupyter-widgets jupyter-button widget-button";
  button.textContent = "Choose files";
  button.onclick = () => {
    input.value = ""; // the same file can be chosen again
    input.click();
  };
  let choices = 0;
  input.onchange = async () => {
    const choice = ++choices;
    const files = [...input.files];
    for (const [place, file] of files.entries()) {
      const small = file.size <= model.get("limit");
      const content = small ? await file.arrayBuffer().catch(() => null) : null;
      if (choice !== choices) return; // other files were chosen meanwhile
      const about = { name: file.name, size: file.size, place, number: files.length };
      model.send(about, undefined, content ? [content] : []);
    }
  };
  el.append(button, input);
}
export default { render };
